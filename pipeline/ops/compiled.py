"""Where an engine keeps what it compiles: a directory of its own for each process at work, warm from the start.

<cache>/tagladder/<engine>/0, 1, 2 ...    XDG_CACHE_HOME, else ~/.cache; each with a lock beside it
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.locks import take

LOCKS = ("lock_dir", ".lock")  # of the engines, within their directories
_directories: dict[Path, int] = {}  # compile directories of this process, with the descriptors of their locks


def private_folder(engine: str) -> Path:
    """Return a compile directory that only this user can enter (mode 0700) and no other process compiles into.

    The engines lock theirs while they compile: processes that share one wait for each other, so each takes
    the first that is free of a numbered row, and keeps it until it ends. A new one begins as a copy of the first:
    the members of an ensemble are the same graph, which takes a minute to compile and seconds to load. Where the
    user's cache cannot be written, or is another user's, a new temporary directory is taken, which is compiled
    into afresh.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = base / "tagladder" / engine
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        facts = folder.stat()
        if facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) == 0o700 and os.access(folder, os.W_OK):
            return next(numbered for numbered in (folder / str(n) for n in count()) if _taken(numbered))
    except (OSError, RuntimeError, ArtifactError):
        pass
    return Path(tempfile.mkdtemp(prefix=f"tagladder-{engine}-"))


def _taken(folder: Path) -> bool:
    """Return whether this process has the directory to itself, now or since earlier."""
    if folder not in _directories:
        descriptor = take(folder.with_name(f"{folder.name}.lock"))
        if descriptor is None:
            return False
        _directories[folder] = descriptor
        if not folder.exists():
            _begin(folder)
    return True


def _begin(folder: Path) -> None:
    """Make the directory, as a copy of the first of the row where there is one; whoever holds that may go on."""
    first, build = folder.with_name("0"), folder.with_name(f"{folder.name}.new")
    shutil.rmtree(build, ignore_errors=True)
    if first.exists():
        # Files may go away meanwhile. The engines write the key of a function when it is whole, and pass over what has
        # none: what was copied is good, and the rest is compiled.
        with suppress(shutil.Error):
            shutil.copytree(first, build, ignore=shutil.ignore_patterns(*LOCKS))
    build.mkdir(exist_ok=True)
    build.chmod(0o700)
    build.rename(folder)
