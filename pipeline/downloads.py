"""Input files by URL: each version is brought here once, whole, and known by its content.

    <cache>/tagladder/inputs/<digest of the URL>/facts.json          URL, size, tag of the version, SHA-256
                                                 <SHA-256>.csv.gz    its bytes

<cache> is XDG_CACHE_HOME, else ~/.cache. Which version there is the store tells by size and ETag (or time of change);
as long as that is the same nothing is read again. `here` takes paths of this machine too, and gives them back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import has_magic
from pathlib import Path
from typing import Any

from pipeline.digests import sha256_of
from pipeline.errors import ArtifactError, SettingsError
from pipeline.locks import held
from pipeline.stores import filesystem, told
from pipeline.urls import is_url, name_of

FACTS = "facts.json"
KEPT_DAYS = 7  # what was not used for so long goes when something else is brought
KEPT_HOURS = 24  # as long stays a version that a newer one has followed: a run may be at work on it
BLOCK = 1 << 20
TRIES = 3  # of a file that changes while it is brought
_asked: dict[str, dict[str, Any]] = {}  # by URL: the version whose digest this process was given last


def cache_folder() -> Path:
    """Return the directory of this user for what is only a copy."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tagladder"


def expanded(pattern: str, *, is_table: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the sorted URLs that one names: itself, or the files that fit a glob, or the tables in a directory."""
    fs = filesystem(pattern)
    with _named(pattern):
        if has_magic(pattern.partition("://")[2]):
            found = fs.glob(pattern)
        elif pattern.endswith("/") or _is_folder(fs, pattern):
            files = (each["name"] for each in _listed(fs, pattern) if each["type"] == "file")
            found = [name for name in files if not name.endswith("/") and is_table(name_of(name))]
        else:
            return (pattern,)
    # The libraries call it bucket/key, or /path without the host; what stands before that is the same for all.
    before = pattern.rstrip("/").removesuffix(fs._strip_protocol(pattern))
    return tuple(sorted(before + fs._strip_protocol(name) for name in found))


def _is_folder(fs: Any, url: str) -> bool:
    try:
        return bool(fs.info(url)["type"] == "directory")
    except FileNotFoundError:
        return False


def _listed(fs: Any, url: str) -> list[Any]:
    try:
        return list(fs.ls(url, detail=True))
    except FileNotFoundError:
        return []


def version(url: str) -> list[Any] | None:
    """Return size and tag of what lies there now; None where there is no file."""
    with _named(url):
        try:
            facts = filesystem(url).info(url)
        except FileNotFoundError:
            return None
    if facts["type"] != "file":
        return None
    names = ("ETag", "etag", "generation", "mtime", "LastModified", "created")
    tag = next((str(facts[name]) for name in names if facts.get(name) is not None), "")
    return [facts["size"], tag]


def digest(url: str) -> str | None:
    """Return the SHA-256 of what lies there now, brought here where it is not yet; None where there is no file.

    Raises SettingsError where the store refuses or does not answer.
    """
    now = version(url)
    if now is None:
        return None
    folder = _folder(url)
    with held(folder / "lock"):
        known = _known(folder, url)
        if known is None or known["version"] != now:
            known = _bring(url, folder)
            _forget_old(folder.parent)
        os.utime(folder / FACTS)
        os.utime(folder / known["name"])
    _asked[url] = known
    return str(known["sha256"])


def here(path: str) -> str:
    """Return a path of this machine: of a URL that of its copy, which is brought where there is none.

    It is the version whose digest was asked for last, by this process if it has asked. Raises SettingsError where there
    is no such file any more.
    """
    if not is_url(path):
        return path
    folder, asked = _folder(path), _asked.get(path)
    known = asked if asked is not None and _is_whole(folder, asked) else _known(folder, path)
    if known is None:
        if digest(path) is None:
            raise SettingsError(f"{path}: there is no such file any more; run again when it is back")
        known = _known(folder, path)
    assert known is not None
    return str(folder / known["name"])


def expect(url: str, digest: str) -> None:
    """Let this process read the version of this digest, where it is here, as the process has it that was told of it."""
    if is_url(url):
        name = _copy_name(url, digest)
        with suppress(OSError):
            _asked[url] = {"name": name, "version": [(_folder(url) / name).stat().st_size]}


def forget(url: str) -> None:
    """Let the copy that `here` gives be brought again: it is not what it was."""
    path = Path(here(url))
    _asked.pop(url, None)
    with held(path.with_name("lock")):
        path.unlink(missing_ok=True)


def _bring(url: str, folder: Path) -> dict[str, Any]:
    """Copy a file, and write down which version that was. Raises SettingsError where it changes all the while."""
    for _ in range(TRIES):
        before, temporary = version(url), folder / f"{os.getpid()}.new"
        if before is None:
            break
        try:
            name, content = _copied(url, temporary)
            if version(url) == before:
                temporary.replace(folder / name)
                known = {"url": url, "version": before, "sha256": content, "name": name}
                _write(folder, known)
                return known
        finally:
            temporary.unlink(missing_ok=True)
    raise SettingsError(f"{url}: changes while it is read; run again when its writer is done")


def _copied(url: str, temporary: Path) -> tuple[str, str]:
    """Return the name of a copy, and its SHA-256."""
    _free(temporary.parent)
    with _named(url):
        filesystem(url).get_file(url, str(temporary))
    content = sha256_of(temporary)
    return _copy_name(url, content), content


def _copy_name(url: str, digest: str) -> str:
    from pipeline.inputs import extensions

    return digest + "".join(extensions(name_of(url)))


def _free(folder: Path) -> None:
    """Remove what a killed process has left."""
    for path in folder.glob("*.new"):
        path.unlink(missing_ok=True)


def _write(folder: Path, known: dict[str, Any]) -> None:
    temporary = folder / f"{FACTS}.new"
    temporary.write_text(json.dumps(known), "utf-8")
    temporary.replace(folder / FACTS)
    for path in folder.iterdir():
        if path.name in (FACTS, "lock", known["name"]):
            continue
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > KEPT_HOURS * 3600:
                path.unlink()


def _known(folder: Path, url: str) -> dict[str, Any] | None:
    """Return what was brought; None where it is not there, or is not whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known: dict[str, Any] = json.loads((folder / FACTS).read_text("utf-8"))
        return known if known["url"] == url and _is_whole(folder, known) else None
    return None


def _is_whole(folder: Path, known: dict[str, Any]) -> bool:
    with suppress(OSError):
        return bool((folder / known["name"]).stat().st_size == known["version"][0])
    return False


def _folder(url: str) -> Path:
    return cache_folder() / "inputs" / hashlib.sha256(url.encode()).hexdigest()[:32]


def _forget_old(inputs: Path) -> None:
    for facts in inputs.glob(f"*/{FACTS}"):
        with suppress(OSError):
            if time.time() - facts.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(facts.parent)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Turn what a store says into a SettingsError: which file is read is said in the settings."""
    try:
        with told(url):
            yield
    except ArtifactError as error:
        raise SettingsError(str(error)) from error.__cause__
