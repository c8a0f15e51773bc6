"""Writes that happen only if nobody else has written: the one thing that two machines need of a store to agree.

s3, s3a    If-None-Match: * and If-Match with the ETag, in one request
gs, gcs    the same by the generation of the object
memory     a lock (tests)
others     hdfs among them, have neither: what was written is read again, and counts if it is still there. Two that
           write at the same moment may both believe so; the later one stays. There a file grows while it is written: it
           does so under another name, and then gets its own.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from pipeline.digests import sha256_of_bytes
from pipeline.stores import status_of

ABSENT = ""  # the tag of what is not there
HIDDEN = "."  # begins the name of what is being written
_LOST = (409, 412)  # another one was first; was just about to be
_GONE = 404
_in_memory = threading.Lock()

Write = Callable[[Any, str, bytes, str], bool]


def write(scheme: str, fs: Any, path: str, data: bytes) -> None:
    """Write an object whole, whatever was there."""
    if scheme in _WRITES:
        fs.pipe_file(path, data)
    else:
        _put_whole(fs, path, data)


def remove(fs: Any, path: str) -> None:
    """Remove an object, if it is there; of one that is not HDFS says only that it could not (EIO)."""
    try:
        fs.rm_file(path)
    except OSError:
        if fs.exists(path):
            raise


def write_if(scheme: str, fs: Any, path: str, data: bytes, *, tag: str) -> bool:
    """Write an object if it has this tag, ABSENT for none, and return whether it was; what the libraries raise passes.

    False says only that the request was refused. Where its answer got lost, and the library sent it again, the data may
    be there all the same: who is told False looks.
    """
    return _WRITES.get(scheme, _and_look)(fs, path, data, tag)


def tag_of(scheme: str, facts: dict[str, Any], content: bytes) -> str:
    """Return the tag by which `write_if` knows what was read."""
    names = {"s3": "ETag", "s3a": "ETag", "gs": "generation", "gcs": "generation"}
    return str(facts[names[scheme]]) if scheme in names else sha256_of_bytes(content)


def _s3(fs: Any, path: str, data: bytes, tag: str) -> bool:
    bucket, key, _ = fs.split_path(path)
    condition = {"IfNoneMatch": "*"} if tag == ABSENT else {"IfMatch": tag}
    return _accepted(lambda: fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition), tag)


def _gs(fs: Any, path: str, data: bytes, tag: str) -> bool:
    bucket, key, _ = fs.split_path(path)
    place = f"{fs._location}/upload/storage/v1/b/{quote(bucket)}/o?name={quote(key, safe='')}"
    headers = {"Content-Type": "application/octet-stream"}
    condition = {"ifGenerationMatch": tag or "0"}
    return _accepted(lambda: fs.call("POST", place, uploadType="media", headers=headers, data=data, **condition), tag)


def _accepted(request: Callable[[], Any], tag: str) -> bool:
    try:
        request()
    except Exception as error:
        gone = status_of(error) == _GONE or isinstance(error, FileNotFoundError)
        if gone and tag == ABSENT:  # It is the bucket that is not there.
            raise
        # gcsfs says of what another one has written only that it is there.
        if gone or status_of(error) in _LOST or isinstance(error, FileExistsError):
            return False
        raise
    return True


def _memory(fs: Any, path: str, data: bytes, tag: str) -> bool:
    with _in_memory:
        now = sha256_of_bytes(fs.cat_file(path)) if fs.exists(path) else ABSENT
        if now == tag:
            fs.pipe_file(path, data)
        return now == tag


def _and_look(fs: Any, path: str, data: bytes, tag: str) -> bool:
    now = sha256_of_bytes(fs.cat_file(path)) if fs.exists(path) else ABSENT
    if now != tag:
        return False
    try:
        _put_whole(fs, path, data)
    except OSError:
        if not fs.exists(path):  # Else another one has just come to be there.
            raise
    return bool(fs.cat_file(path) == data)


def _put_whole(fs: Any, path: str, data: bytes) -> None:
    """Write a file under another name, and rename it: nobody sees half of it, at most none for a moment."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/{HIDDEN}{name}.{secrets.token_hex(4)}"
    fs.makedirs(folder, exist_ok=True)
    try:
        fs.pipe_file(temporary, data)
        remove(fs, path)
        fs.mv(temporary, path)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(temporary)
        raise


_WRITES: dict[str, Write] = {"s3": _s3, "s3a": _s3, "gs": _gs, "gcs": _gs, "memory": _memory}
