"""The luigi command in two processes: one works, the other waits for it and can still speak when a library aborts it.

A library that is out of memory may end its process without a word, by SIGSEGV or SIGABRT, and so may the kernel.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from typing import NoReturn

from pipeline.errors import SettingsError
from pipeline.orphans import killed_with
from tasks.once import EXIT_FAILED

# Bytes. The smallest job takes 1.8 GB; with less, a thread that finds no memory as it starts is waited for for ever.
MIN_ADDRESS_SPACE = 2 << 30
EXIT_OF_THE_C_LIBRARY = 127  # where it finds no memory for a thread
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NO_MORE = signal.SIGUSR1  # Luigi's own: end what has begun, and begin nothing more


def supervise() -> None:
    """Go on in a child process; this one waits, and ends as the child did.

    A signal that stops the command stops the child, and SIGUSR1 lets it begin no more tasks; a child whose parent is
    gone ends at once. Raises SettingsError where the limit on the address space is too low for any run.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limited = limit != resource.RLIM_INFINITY
    if limited and limit < MIN_ADDRESS_SPACE:
        raise SettingsError(
            f"the limit on memory (ulimit -v) is {limit >> 20:,} MB, and the smallest job needs "
            f"{MIN_ADDRESS_SPACE >> 20:,}; raise it"
        )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(NO_MORE, signal.SIG_IGN)  # It would end a process that does not listen to it yet.
    watched, held = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(held)
        killed_with(parent)
        threading.Thread(target=_end_with_other_end, args=(watched,), name="end with parent", daemon=True).start()
        if limited:
            _reserve()
        return
    os.close(watched)
    _wait(child)


def _reserve() -> None:
    """Have OpenBLAS take its memory, of NumPy and of SciPy, while there is some: later it would try for ever."""
    import numpy as np
    from scipy.linalg.blas import dgemm

    square = np.ones((2, 2))
    dgemm(1.0, square @ square, square)


def _end_with_other_end(pipe: int) -> None:
    """End this process when nobody holds the other end of the pipe any more."""
    os.read(pipe, 1)
    os._exit(1)


def _wait(child: int) -> NoReturn:
    signal.signal(NO_MORE, lambda number, _: os.kill(child, number))
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if -code in STOPS:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    if code < 0 or code == EXIT_OF_THE_C_LIBRARY:
        print(aborted(code), file=sys.stderr, flush=True)
        os._exit(EXIT_FAILED)
    os._exit(code)


def aborted(code: int) -> str:
    """Return what to say of a process that ended with this code, negative for a signal.

    >>> aborted(-9).partition(":")[0]
    'the job was ended by SIGKILL'
    """
    by = signal.Signals(-code).name if code < 0 else "the C library"
    return (
        f"the job was ended by {by}: most likely it was out of memory, and a library or the "
        "kernel ended it. Nothing half done is published. Give it more memory, or lower [network] hidden, [features] "
        "hash_width or the batch sizes, then run the same command again: it goes on from there"
    )
