"""The file around a model: HDF5 behind a 512-byte header with its SHA-256, checked before HDF5 opens the file.

    TAGLADDER MODEL
    format 2
    sha256 <64 hex digits of all that follows the header>
    bytes <how many that are>

padded with zeros to 512 bytes. HDF5 skips such a user block by itself, so `h5ls model.h5` works. Of random mutations of
an HDF5 file one in thousands crashes or hangs libhdf5; here each of them is a ModelError. A crafted file may carry
a right checksum: links, external data and sizes are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import ModelError, PipelineError
from pipeline.hdf5 import read_array, write_array
from pipeline.hdf5_files import created
from pipeline.probe import is_readable

MAGIC = b"TAGLADDER MODEL\n"
VERSION = 2
READABLE = (1, 2)  # versions whose files are read; pipeline/formats.py knows what the older ones lack
HEADER = 512
MAX_OBJECTS = 100_000
MAX_DEPTH = 8
REMEDY = "take it again from the stage 'export'"


def write(path: Path, fill: Callable[[h5py.Group], None]) -> str:
    """Write a model file: `fill` writes into the HDF5 root, the header follows; return the SHA-256 in the header."""
    with created(path, userblock_size=HEADER) as file:
        fill(file)
    digest, n_bytes = _digest(path)
    with path.open("r+b") as stream:
        stream.write(_header(VERSION, digest, n_bytes))
    return digest


@contextmanager
def open_verified(path: Path) -> Iterator[tuple[h5py.File, str]]:
    """Give the open HDF5 file and its SHA-256, after header, checksum and all declared sizes were checked.

    Raises ModelError with the place and the remedy for a file that is absent, foreign, damaged, of a later format or
    not built as `write` builds it, and for whatever goes wrong while the caller makes sense of its content.
    """
    digest = verify(path)
    has_strings = version_of(path) == 1  # in attributes
    if has_strings and not is_readable(path):
        raise ModelError(f"{path}: not a model file that can be used: reading its attributes fails; {REMEDY}")
    try:
        with h5py.File(path, "r") as file:
            _check_objects(file, n_bytes=path.stat().st_size, strings=has_strings)
            yield file, digest
    except (PipelineError, ArithmeticError, AttributeError, LookupError, MemoryError) as error:
        raise ModelError(_placed(path, error)) from error
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(_placed(path, error)) from error


def verify(path: Path) -> str:
    """Return the SHA-256 of a model file whose header and checksum are right. Raises ModelError for any other file."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; run the job, or give the path of a model.h5")
    try:
        with path.open("rb") as stream:
            header = stream.read(HEADER)
        digest, n_bytes = _digest(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not header.startswith(MAGIC):
        raise ModelError(f"{path}: does not begin as a model file does; give the path of a model.h5")
    version = _version(header)
    if version is not None and version > VERSION:
        raise ModelError(f"{path}: format {version}, this version reads up to {VERSION}; install a newer version")
    if version is not None and version < READABLE[0]:
        raise ModelError(f"{path}: format {version}, this version reads from {READABLE[0]} on; train the model again")
    if version is None or header != _header(version, digest, n_bytes):
        raise ModelError(f"{path}: damaged, its content does not have the SHA-256 of its header; {REMEDY}")
    return digest


def version_of(path: Path) -> int:
    """Return the format version of a file that `verify` has accepted."""
    with path.open("rb") as stream:
        return _version(stream.read(HEADER)) or 0


def write_json(group: h5py.Group, name: str, value: object) -> None:
    """Store a JSON document as bytes: an attribute could not hold more than 64 KB."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    write_array(group, name, np.frombuffer(text.encode(), dtype=np.uint8))


def read_json(group: h5py.Group, name: str) -> Any:
    """Return a JSON document. Raises FeatureError where it is missing, ModelError where it is not JSON."""
    text = read_array(group, name, np.uint8, (None,)).tobytes()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{name}' is not JSON: {error}; {REMEDY}") from error


def _digest(path: Path) -> tuple[str, int]:
    """Return SHA-256 and number of the bytes behind the header."""
    sha256 = hashlib.sha256()
    n_bytes = 0
    with path.open("rb") as stream:
        stream.seek(HEADER)
        while block := stream.read(1 << 20):
            sha256.update(block)
            n_bytes += len(block)
    return sha256.hexdigest(), n_bytes


def _header(version: int, digest: str, n_bytes: int) -> bytes:
    """Return the 512 bytes.

    >>> _header(2, "ab", 7).rstrip(bytes(1)).decode().splitlines()
    ['TAGLADDER MODEL', 'format 2', 'sha256 ab', 'bytes 7']
    """
    return (MAGIC + f"format {version}\nsha256 {digest}\nbytes {n_bytes}\n".encode()).ljust(HEADER, b"\0")


def _version(header: bytes) -> int | None:
    """Return the format version that a header states; None where it is not a number.

    >>> _version(_header(12, "ab", 7)), _version(MAGIC + b"format x")
    (12, None)
    """
    word = header.removeprefix(MAGIC).split(b"\n")[0].removeprefix(b"format ")
    return int(word) if word.isdigit() and len(word) < 9 else None


def _placed(path: Path, error: Exception) -> str:
    """Return what went wrong with the file, and the remedy."""
    text = str(error).removeprefix(f"{path}: ") or type(error).__name__
    return (
        f"{path}: {text}" if text.endswith(REMEDY) else f"{path}: not a model file that can be used: {text}; {REMEDY}"
    )


def _check_objects(file: h5py.File, *, n_bytes: int, strings: bool) -> None:
    """Raise ModelError unless all is hard links to plain arrays that declare at most the bytes of the file.

    Nor may an attribute be a string of any length, unless `strings`: a damaged heap of strings makes libhdf5 hang.
    """
    waiting: list[tuple[h5py.Group, int]] = [(file, 0)]
    declared = n_objects = 0
    while waiting:
        group, depth = waiting.pop()
        if not strings and any(group.attrs.get_id(name).dtype.hasobject for name in group.attrs):
            raise ModelError(f"{group.name} has an attribute that is a string of any length; {REMEDY}")
        for name in group:
            place = f"{group.name.rstrip('/')}/{name}"
            n_objects += 1
            if n_objects > MAX_OBJECTS or depth > MAX_DEPTH:
                raise ModelError(f"{place}: more objects than a model file has; {REMEDY}")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError(f"{place} points elsewhere, and a model file holds all its data; {REMEDY}")
            found = group[name]
            if isinstance(found, h5py.Group):
                waiting.append((found, depth + 1))
                continue
            if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual or found.chunks:
                raise ModelError(f"{place} is not an array that lies in the file as it is; {REMEDY}")
            if found.dtype.hasobject:
                raise ModelError(f"{place} holds references or strings, not numbers; {REMEDY}")
            declared += int(found.size or 0) * int(found.dtype.itemsize)
            if declared > n_bytes:
                raise ModelError(f"{place} declares more bytes than the file has; {REMEDY}")
