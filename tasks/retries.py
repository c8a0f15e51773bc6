"""What may pass by itself is tried again: a full disk, a share that is away. A wrong setting or catalog is not."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from pipeline.config_results import StorageSettings
from pipeline.errors import PipelineError
from pipeline.refusals import chain

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
BUSY = (errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENOMEM)
AWAY = (errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN)
PASSING = {*FULL_OR_BROKEN, *BUSY, *AWAY, errno.ENETUNREACH, errno.ECONNRESET, errno.ENOTCONN}


def patiently(action: Callable[[], Result], storage: StorageSettings, *, note: Callable[[str], None]) -> Result:
    """Return what the action returns, tried as often as [storage] tries says where the failure may pass by itself.

    The error of the last try is let through; `note` is told of those before. What fails is a whole publication: it is
    built anew, and no file is synced twice.
    """

    def tell(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        text = f"try {state.attempt_number} of {storage.tries}, the next in {storage.retry_delay:g} s: {error}"
        logger.warning("%s", text)
        note(text)

    attempts = Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(storage.tries),
        wait=wait_fixed(storage.retry_delay),
        before_sleep=tell,
        reraise=True,
    )
    return attempts(action)


def may_pass(error: BaseException) -> bool:
    """Return whether an error comes from a file system or a network that may be better in a while.

    >>> may_pass(OSError(errno.ENOSPC, "no space")), may_pass(OSError(errno.EROFS, "read-only")), may_pass(ValueError())
    (True, False, False)
    """
    return any(_passes(each) for each in chain(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in PASSING
    # DuckDB and HDF5 have exceptions of their own, with the words of the system.
    foreign = not isinstance(error, PipelineError)
    return foreign and any(os.strerror(code) in str(error) for code in FULL_OR_BROKEN)
