"""A worker process does not outlive its parent, however that ended: nobody would wait for what it still makes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended; do nothing in a process of its own.

    A parent that is killed cannot tell its children. But the kernel closes its end of the pipe that multiprocessing
    keeps between them. A thread waits for that, and ends the process at once: what is on the disk is whole at any time.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end with parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
