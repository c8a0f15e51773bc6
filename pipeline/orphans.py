"""A worker process does not outlive its parent, however that ended: nobody would wait for what it still makes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

SET_SIGNAL_OF_PARENT = 1  # Linux: PR_SET_PDEATHSIG of prctl(2)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended; do nothing in a process of its own.

    A parent that is killed cannot tell its children. But the kernel closes its end of the pipe that multiprocessing
    keeps between them. A thread waits for that, and ends the process at once: what is on the disk is whole at any time.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        if parent.pid == os.getppid():  # Else it has ended already, or has had this process forked by a server.
            killed_with(os.getppid())
        threading.Thread(target=_end_after, args=(parent,), name="end with parent", daemon=True).start()


def killed_with(parent: int) -> None:
    """Let the kernel kill this process in the moment in which its parent ends, whatever it does then.

    A thread of Python that waits for the parent's end comes to its turn only when a library lets it. The kernel counts
    the thread that has started this process as the parent, and kills nothing on other systems than Linux: there the
    thread is all there is.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SET_SIGNAL_OF_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # It ended before the line above.
        os._exit(1)


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
