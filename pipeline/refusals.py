"""What a file system says when it does not write, whichever library was writing."""

from __future__ import annotations

import errno
import os
from collections.abc import Container

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)  # what writing may meet anywhere


def refusal(error: BaseException, only: Container[int] | None = DISK) -> str | None:
    """Return what the file system said, None for another error; `only` these codes of an OSError, None: all.

    DuckDB has exceptions of its own for it.

    >>> refusal(RuntimeError("IO Error: Could not write file: No space left on device"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.errno is not None and (only is None or error.errno in only):
        return f"{os.strerror(error.errno)}: {error.filename}" if error.filename else os.strerror(error.errno)
    return next((text for code in DISK if (text := os.strerror(code)) in str(error)), None)
