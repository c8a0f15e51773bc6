"""What a file system says when it does not write, whichever library was writing, and wherever."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Iterator

from pipeline.errors import PipelineError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)  # what writing may meet anywhere
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def refusal(error: BaseException, only: Container[int] | None = DISK) -> str | None:
    """Return what the file system said, None for another error; `only` these codes of an OSError, None: all.

    DuckDB has exceptions of its own for it.

    >>> refusal(RuntimeError("IO Error: Could not write file: No space left on device"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.errno is not None and (only is None or error.errno in only):
        return f"{os.strerror(error.errno)}: {error.filename}" if error.filename else os.strerror(error.errno)
    return next((text for code in DISK if (text := os.strerror(code)) in str(error)), None)


def of_system(error: BaseException) -> OSError | None:
    """Return the first error of the system among those that an error comes from, None where there is none.

    >>> of_system(RuntimeError("write failed (error message = 'No space left on device')"))
    OSError(28, 'No space left on device')
    """
    for each in chain(error):
        if isinstance(each, PipelineError):  # Its words may be those of a catalog.
            continue
        found = each if isinstance(each, OSError) and each.errno is not None else in_words(str(each))
        if found is not None:
            return found
    return None


def in_words(text: str) -> OSError | None:
    """Return the error of the system that a text tells of: by Python's number of it, or by the words for a disk.

    >>> in_words("OSError: [Errno 116] Stale file handle: '/share/items.parquet'")
    OSError(116, 'Stale file handle')
    """
    number = _NUMBER.search(text)
    code = int(number[1]) if number else next((code for code in DISK if os.strerror(code) in text), None)
    return None if code is None else OSError(code, os.strerror(code))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it was raised from, or while handling them."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
