"""What a file system says when it does not write, whichever library was writing; none of it gets lost."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)  # what writing may meet anywhere


def refusal(error: BaseException, only: Container[int] | None = DISK) -> str | None:
    """Return what the file system said, None for another error; `only` these codes of an OSError, None: all.

    HDF5 and DuckDB have exceptions of their own for it.

    >>> refusal(RuntimeError("Unable to close file (errno = 28, error message = 'No space left on device')"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.errno is not None and (only is None or error.errno in only):
        return f"{os.strerror(error.errno)}: {error.filename}" if error.filename else os.strerror(error.errno)
    return next((text for code in DISK if (text := os.strerror(code)) in str(error)), None)


@contextmanager
def nothing_lost() -> Iterator[None]:
    """Raise a refusal that was met where Python can only print it: h5py writes what is left of an array as it is freed.

    Else such a file would be taken for whole, and is not.
    """
    lost: list[BaseException] = []
    before = sys.unraisablehook

    def hook(args: UnraisableHookArgs) -> None:
        if args.exc_value is not None and refusal(args.exc_value):
            lost.append(args.exc_value)
        else:
            before(args)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
    if lost:
        raise lost[0]
