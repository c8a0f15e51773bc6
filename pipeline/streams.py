"""Stage 1: bytes of an input file, unpacked, hashed as they are read, and made valid UTF-8 without losing a byte.

What is not UTF-8 would fail a whole block in every fast reader. Here such a byte becomes a marker of two
characters that no text uses (Unicode noncharacters), so that its row can be found, rejected and shown.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.downloads import forget, here
from pipeline.errors import CatalogError
from pipeline.inputs import extensions
from pipeline.urls import is_url

CODECS = {".gz": "gzip", ".zst": "zstd"}
MARKED = "[\ufdd0-\ufdef]"  # a pattern that finds markers; Arrow and Python read it alike
LINE_FEED, CARRIAGE_RETURN = 10, 13
_FIRST = 0xFDD0


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Give the markers of bytes that are not UTF-8: a noncharacter for each half byte."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(chr(_FIRST + (byte >> 4)) + chr(_FIRST + 16 + (byte & 15)) for byte in wrong), error.end


codecs.register_error("pipeline-mark", _mark)
_UTF16 = tuple(mark.decode("utf-8", "pipeline-mark").encode() for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def unmark(text: str) -> str:
    r"""Return text with markers shown as the bytes that they stand for.

    >>> print(unmark(b"caf\xe9".decode("utf-8", "pipeline-mark")))
    caf\xe9
    """
    return re.sub(
        "([\ufdd0-\ufddf])([\ufde0-\ufdef])",
        lambda pair: f"\\x{ord(pair[1]) - _FIRST:x}{ord(pair[2]) - _FIRST - 16:x}",
        text,
    )


def open_file(path: str) -> io.BufferedReader:
    """Return the open file, of a URL its copy; raises CatalogError where there is none to read."""
    try:
        return Path(here(path)).open("rb")
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror or error}; see [catalog] and [scoring]") from None
    except ValueError as error:  # a NUL
        raise CatalogError(f"{path!r}: is no path ({error}); see [catalog] and [scoring]") from None


def verify_digest(path: str, digest: str, expected: str | None) -> None:
    """Raise CatalogError where a file's SHA-256 is not the one that is expected; a copy of a URL is brought again."""
    if expected is not None and digest != expected:
        if is_url(path):
            forget(path)
        raise CatalogError(f"{path}: changed while the run was on; run again when its writer is done")


class HashedFile:
    """A file, read once from start to end, of which every byte goes into a SHA-256."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open_file(path)
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        block = self._file.read(size)
        self._digest.update(block)
        return block

    @property
    def closed(self) -> bool:
        """Return whether the file is closed (Arrow asks)."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def verify(self, expected: str | None) -> None:
        """Read to the end; raise CatalogError where the bytes are not those of the digest that is expected."""
        while self.read(1 << 20):
            pass
        verify_digest(self._path, self._digest.hexdigest(), expected)


class TextStream:
    """The unpacked text of a file as valid UTF-8, without a byte order mark.

    Raises CatalogError for an absent, an empty, a damaged and a UTF-16 file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.marked = False  # has a byte been marked yet?
        self.blank_lines = set[int]()  # numbers, from 1, of the blank lines among those read
        self._line, self._in_line = 1, 0  # the line that comes next, and the bytes of it that were read already
        self._hashed = HashedFile(path)
        self._source: Any = self._hashed
        compression = CODECS.get(extensions(path)[1])
        if compression is not None:
            self._source = pa.CompressedInputStream(pa.PythonFile(self._hashed, mode="r"), compression)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("pipeline-mark")
        self._buffer = bytearray()
        self._tail = b""
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes; fewer only at the end."""
        self._fill(size)
        block = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._note_blank_lines(np.frombuffer(block, np.uint8))
        return block

    def head(self, size: int) -> str:
        """Return the text of the first bytes without taking them. Raises CatalogError where there are none."""
        self._fill(size)
        if self._buffer[:12] in _UTF16:
            raise CatalogError(f"{self.path} line 1: the text is UTF-16; save it as UTF-8")
        text = bytes(self._buffer[:size]).decode(errors="ignore")
        if not text.strip():
            raise CatalogError(f"{self.path}: is empty; was its export cut short?")
        return text

    def append(self, tail: bytes) -> None:
        """Let these bytes come after those of the file."""
        if self._ended:
            self._buffer += tail
        self._tail = tail

    def verify(self, expected: str | None) -> None:
        """Raise CatalogError where the file is not the one whose SHA-256 is expected."""
        self._hashed.verify(expected)

    @property
    def closed(self) -> bool:
        """Return whether the file is closed (Arrow asks)."""
        return self._hashed.closed

    def close(self) -> None:
        """Close the file."""
        self._hashed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _note_blank_lines(self, text: npt.NDArray[np.uint8]) -> None:
        """Take down the numbers of the lines that hold nothing, or a carriage return only."""
        ends = np.flatnonzero(text == LINE_FEED)
        lengths = np.diff(ends, prepend=-1) - 1 - (text[ends - 1] == CARRIAGE_RETURN) if len(ends) else ends
        if len(ends):
            lengths[0] = self._in_line + np.count_nonzero(text[: ends[0]] != CARRIAGE_RETURN)
            self.blank_lines.update((self._line + np.flatnonzero(lengths <= 0)).tolist())
            self._in_line = 0
        rest = text[ends[-1] + 1 :] if len(ends) else text
        self._in_line += int(np.count_nonzero(rest != CARRIAGE_RETURN))
        self._line += len(ends)

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size and not self._ended:
            try:
                block = bytes(self._source.read(size))
            except (OSError, pa.ArrowException) as error:
                raise CatalogError(f"{self.path}: cannot be unpacked ({error}); it is damaged or cut off") from None
            self._ended = not block
            text = self._decoder.decode(block, final=self._ended)
            # Markers are rare: they are looked for only until the first is found.
            self.marked = self.marked or (not text.isascii() and re.search(MARKED, text) is not None)
            self._buffer += text.encode()
            if self._ended:
                self._buffer += self._tail
