"""A process that is started to work does not outlive the one that has started it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, sys, time
from pipeline.orphans import end_with_parent, killed_with

def work():
    end_with_parent()
    print(os.getpid(), flush=True)
    {busy}

multiprocessing.get_context("fork").Process(target=work).start()
time.sleep(60)
"""
# A library that holds Python's lock lets no thread see that the parent is gone; Python's own regular expressions do so.
BUSY = {"asleep": "time.sleep(60)", "busy": "import re; re.match('(a+)+b', 'a' * 40)"}


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="what a process is at is read from /proc")
@pytest.mark.parametrize("busy", BUSY)
def test_a_worker_is_gone_in_the_moment_in_which_its_parent_is_killed(busy):
    command = [sys.executable, "-c", PARENT.format(busy=BUSY[busy])]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert is_alive(worker)
    parent.kill()
    parent.communicate()
    killed = time.monotonic()
    while is_alive(worker):
        assert time.monotonic() - killed < 5
        time.sleep(0.001)
