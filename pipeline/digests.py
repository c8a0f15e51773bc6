"""SHA-256 of files and of settings: what a result was made from, told by content and never by path or time."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECENT_SECONDS = 2.0


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of the parts as canonical JSON; their order does not count.

    Raises TypeError for a value that JSON does not know: nothing is turned into text silently.

    >>> fingerprint({"a": 1, "b": [True, None]}) == fingerprint({"b": [True, None], "a": 1})
    True
    >>> fingerprint({"a": 1})[:12]
    '015abd7f5cc5'
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> str:
    """Return content as JSON that carries its own SHA-256, for `unsealed` to notice any change of it.

    >>> print(sealed({"a": 1}))
    {
     "a": 1,
     "digest": "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    }
    """
    return json.dumps({**content, "digest": fingerprint(content)}, sort_keys=True, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """Return the content of what `sealed` wrote; raises ValueError where a byte of it has changed.

    >>> unsealed(sealed({"a": 1}))
    {'a': 1}
    >>> unsealed(sealed({"a": 1}).replace("1,", "2,"))
    Traceback (most recent call last):
    ValueError: it has changed since it was written
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    content.pop("digest", None)
    if sealed(content) != text:
        raise ValueError("it has changed since it was written")
    return content


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes; raises OSError where it cannot be read."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes.

    >>> sha256_of_bytes(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(content).hexdigest()


class Digests:
    """Digests of input files, remembered by path, size, times and inode in a JSON file.

    A file that changed less than two seconds ago is not remembered: it might change again within the
    clock's grain, with the same size and time. A damaged memory is read as an empty one.
    """

    def __init__(self, memory: Path) -> None:
        self.memory = memory
        self._known: dict[str, list[Any]] = _read_memory(memory)
        self.changed = False

    def of(self, path: Path | str) -> str:
        """Return the digest of a file, read only if size, times or inode are new; raises OSError as `open` does."""
        key = os.path.realpath(path)
        before = Path(key).stat()
        # A copy may bring size and mtime along; inode and time of change are the file's own.
        stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
        known = self._known.get(key)
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        digest = sha256_of(key)
        if time.time() - max(before.st_mtime, before.st_ctime) > RECENT_SECONDS:
            self._known[key] = [*stamp, digest]
            self.changed = True
        return digest

    def as_json(self) -> str:
        """Return the memory as it is kept in the file; of files that are gone nothing is kept."""
        there = {key: value for key, value in self._known.items() if Path(key).exists()}
        return json.dumps(there, sort_keys=True, indent=1)


def _read_memory(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, list) and len(value) == 5}
