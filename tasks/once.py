"""The same command runs once at a time: Luigi's lock against a second one, kept below the root of the results.

It is a file of process numbers. Results do not depend on it (pipeline/locks.py), so what is damaged in it is nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from luigi import lock
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.files import writable
from pipeline.refusals import refusal

EXIT_FAILED = 30


def lock_below(root: Path) -> None:
    """Keep the lock below the root of the results.

    By default it is one for all projects of the machine, and `luigi --module tasks ScoreCatalog` is the same
    command everywhere. A root that cannot be written is left for the first task to report.
    """
    config = get_config()
    if CmdlineParser.get_instance() is None or config.has_option("core", "lock_pid_dir"):
        return
    folder = root / "work" / "pid"
    if writable(folder):
        config.set("core", "lock_pid_dir", str(folder).replace("%", "%%"))


def install() -> None:
    """Let a lock that the disk refuses end the command as any other file of a run would, once."""
    if not isinstance(lock.acquire_for, partial):
        lock.acquire_for = partial(acquire, lock.acquire_for)


def acquire(take: Callable[..., bool], folder: str, *options: Any) -> bool:
    """Return what Luigi's `take` says: whether the command may run.

    Numbers that cannot be read, as a crash of the machine may leave them, are none. Ends the command with 30 where the
    disk refuses: Luigi would end with 40 and a traceback.
    """
    try:
        try:
            return take(folder, *options)
        except ValueError:
            Path(lock.get_info(folder)[2]).unlink()
            return take(folder, *options)
    except OSError as error:
        print(
            f"lock: {folder}: cannot be written ({refusal(error, None)}); free space or give write permission below "
            "[storage] root, then run the same command again",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_FAILED) from None
