"""A lock between processes, by the kernel: free at once when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ArtifactError

POLL_SECONDS = 0.1
REMEDY = "give write permission below [storage] root, or name another root"


@contextmanager
def held(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of that name; wait for another process that holds it, and call `waiting` once then.

    The lock is one of fcntl (POSIX): unlike flock's it is not inherited by children, so a child that
    outlives its parent does not keep it. It says nothing between threads of one process. The file may
    be removed by its holder; who waited for it then starts over with a new one. Raises ArtifactError
    where it cannot be made.
    """
    descriptor = take(path)
    if descriptor is None:
        waiting()
    while descriptor is None:
        time.sleep(POLL_SECONDS)
        descriptor = take(path)
    try:
        yield
    finally:
        os.close(descriptor)


def take(path: Path) -> int | None:
    """Return the descriptor of the locked file, or None where another process holds it or has removed it.

    The lock is free again when the descriptor is closed, at the latest when the process ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and _may_be_made(path.parent):
            return None
        raise ArtifactError(f"{path.parent}: cannot be made ({error.strerror}); {REMEDY}") from error
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # The holder removed the directory since the line above.
        return None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be opened ({error.strerror}); {REMEDY}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Waiting may have ended because the holder removed the file: then this lock is of a file without a name.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _may_be_made(folder: Path) -> bool:
    """Return whether a directory that was there is one still, or has been removed since."""
    try:
        return stat.S_ISDIR(folder.lstat().st_mode)
    except FileNotFoundError:
        return True


def holder(path: Path) -> int | None:
    """Return the process that holds the lock of that name, None where no other process does; takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        # Of Linux's struct flock: type, whence, start, length and, filled in by the kernel, process.
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, process = struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(process)
