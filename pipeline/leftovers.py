"""What dead processes leave in work/: half-built directories, checkpoints, temporary files, their numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.locks import take

FINGERPRINT = re.compile("[0-9a-f]{64}")
REMOVED = "removed-"  # how what retention took out of sight is called


@contextmanager
def leftovers(work: Path, kept: Container[str]) -> Iterator[list[Path]]:
    """Give what no process is at work on; nobody can begin to work on it meanwhile.

    Of a stage that is kept a checkpoint stays, from which the next run goes on.
    """
    locks: list[int] = []
    try:
        yield [path for place in sorted(work.glob("*")) for path in _left(place, kept, locks)]
    finally:
        for lock in locks:
            os.close(lock)


def _left(path: Path, kept: Container[str], locks: list[int]) -> Iterator[Path]:
    if path.name.startswith(REMOVED) or (path.suffix[1:].isdecimal() and not alive(int(path.suffix[1:]))):
        yield path
    elif path.name == "pid":  # Luigi's own: in each file the processes that run one command
        for file in sorted(path.glob("*.pid")):
            if not _runs(file):
                yield file
    elif FINGERPRINT.fullmatch(path.name):
        lock = take(path / "lock")
        if lock is None:
            return
        locks.append(lock)
        if path.name in kept:
            yield from (half for half in (path / "build", path / "damaged", path / "spark") if half.exists())
        else:
            yield path


def _runs(file: Path) -> bool:
    """Return whether a process lives whose number stands in a file; what a crash has left unreadable names none."""
    try:
        return any(alive(int(line)) for line in file.read_text("utf-8").split())
    except ValueError:
        return False


def alive(process: int) -> bool:
    """Return whether there is a process of that number.

    >>> alive(os.getpid()), alive(0), alive(10**30)
    (True, False, False)
    """
    if process <= 0:  # To the kernel these are groups of processes, this one's own among them.
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
