"""What lies below one URL of an object store, by keys relative to it.

Writing is whole or not at all, as stores have it; there is no rename, and no file is appended to.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.conditional import ABSENT, HIDDEN, remove, tag_of, write, write_if
from pipeline.errors import ArtifactError
from pipeline.stores import filesystem, told

ROUNDS = 20  # of those that write the same object at once, each of which lets another one through


@dataclass(frozen=True)
class Entry:
    """What a listing says of an object."""

    key: str
    size: int
    tag: str  # another one whenever the object is written; not that of `conditional`
    modified: datetime.datetime  # by the clock of the store


@dataclass(frozen=True)
class Found:
    """An object that was read."""

    content: bytes
    tag: str  # for `conditional.write_if`


class ObjectStore:
    """The objects below a URL. Every method raises ArtifactError where the store refuses or does not answer."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.scheme = url.partition("://")[0]

    def url_of(self, key: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{key}"

    def list(self, prefix: str = "") -> dict[str, Entry]:
        """Return the objects whose key is this, or lies below it, but for those that are being written."""
        return {key: entry for key, entry in self._listed(prefix).items() if f"/{HIDDEN}" not in key}

    def unfinished(self) -> dict[str, Entry]:
        """Return what is being written under another name, or was when its writer was killed."""
        return {key: entry for key, entry in self._listed("").items() if f"/{HIDDEN}" in key}

    def _listed(self, prefix: str) -> dict[str, Entry]:
        with told(self.url_of(prefix)):
            try:
                found = self._fs.find(self._path(prefix), detail=True)
            except FileNotFoundError:
                return {}
        start = len(self._path("")) + 1
        entries = (_entry(path[start:], facts) for path, facts in found.items() if facts["type"] == "file")
        return {entry.key: entry for entry in entries if not entry.key.endswith("/")}

    def read(self, key: str) -> Found | None:
        """Return an object, None where there is none."""
        path = self._path(key)
        with told(self.url_of(key)):
            try:
                # The tag first: should the object change in between, a write by this tag is refused, as it has to be.
                facts = self._fs.info(path)
                content = self._fs.cat_file(path)
            except FileNotFoundError:
                return None
            return Found(content, tag_of(self.scheme, facts, content))

    def write(self, key: str, data: bytes) -> None:
        """Write a small object, whatever was there."""
        with told(self.url_of(key)):
            self._make_parent(key)
            write(self.scheme, self._fs, self._path(key), data)

    def write_if(self, key: str, data: bytes, *, tag: str = ABSENT) -> bool:
        """Write a small object if it has this tag, or is not there; return whether these data are there now."""
        with told(self.url_of(key)):
            if write_if(self.scheme, self._fs, self._path(key), data, tag=tag):
                return True
        # The answer to a request may get lost, and the library send it again: then its own data are in its way.
        found = self.read(key)
        return found is not None and found.content == data

    def change(self, key: str, new: Callable[[bytes | None], bytes | None]) -> None:
        """Replace an object by what `new(content)` makes of it, None where there is none; nothing where it gives None.

        Whoever comes between is read, and the change made anew.
        """
        for _ in range(ROUNDS):
            found = self.read(key)
            data = new(None if found is None else found.content)
            if data is None or (found is not None and found.content == data):
                return
            if self.write_if(key, data, tag=ABSENT if found is None else found.tag):
                return
        raise ArtifactError(f"{self.url_of(key)}: others write it all the while; run the same command again")

    def upload(self, path: Path, key: str) -> None:
        """Copy a file of this machine into the store."""
        with told(self.url_of(key)):
            self._make_parent(key)
            self._fs.put_file(str(path), self._path(key))

    def download(self, key: str, path: Path) -> None:
        """Copy an object to this machine; raises FileNotFoundError where there is none."""
        with told(self.url_of(key), absent_passes=True):
            if self.scheme == "memory":  # All who open an object there share one position: threads would miss parts.
                path.write_bytes(self._fs.cat_file(self._path(key)))
            else:
                self._fs.get_file(self._path(key), str(path))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is none."""
        for key in keys:
            with told(self.url_of(key)):
                remove(self._fs, self._path(key))

    @property
    def _fs(self) -> Any:
        return filesystem(self.url)

    def _path(self, key: str) -> str:
        return str(self._fs._strip_protocol(self.url_of(key) if key else self.url))

    def _make_parent(self, key: str) -> None:
        """Make a directory where a store has them; keys of the others are only names."""
        if self.scheme not in ("s3", "s3a", "gs", "gcs"):
            self._fs.makedirs(self._path(key).rpartition("/")[0], exist_ok=True)


def _entry(key: str, facts: dict[str, Any]) -> Entry:
    names = ("LastModified", "mtime", "updated", "created")
    modified = next((facts[name] for name in names if facts.get(name) is not None), 0.0)
    if isinstance(modified, int | float):
        modified = datetime.datetime.fromtimestamp(modified, datetime.UTC)
    elif isinstance(modified, str):
        modified = datetime.datetime.fromisoformat(modified)
    if modified.tzinfo is None:
        modified = modified.replace(tzinfo=datetime.UTC)
    tag = next((facts[name] for name in ("ETag", "generation") if facts.get(name) is not None), modified.isoformat())
    return Entry(key, int(facts["size"]), str(tag), modified)
