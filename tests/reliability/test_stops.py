"""Suite 6: SIGTERM and SIGINT end the job within five seconds, with all its processes, and the next one goes on."""

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess

from nights import TONIGHT, Night, Tonight, group_is_alive, rounds

from pipeline import container


def checkpoints(night: Night) -> list:
    """Return the checkpoints; while the newest is written there is only the one before it."""
    return list((night.root / "work").glob("*/*checkpoint.h5"))


def epochs_go_by(process: BaseProcess, night: Night, n_epochs: int) -> None:
    """Return when the job has replaced its checkpoint so many times, or has ended."""
    seen = set()
    while process.is_alive() and len(seen) < n_epochs:
        with suppress(FileNotFoundError):
            seen |= {path.stat().st_mtime_ns for path in checkpoints(night)}
        time.sleep(0.002)


def stopped(tonight: Tonight, folder, number: int, n_epochs: int, seconds: float, *flags: str) -> tuple[float, bool]:
    """Stop a job while it trains, run it again, and check all; return seconds to the end and whether it was resumed."""
    night = tonight.yesterday.copy(folder)
    process = night.begin(*TONIGHT, *flags)
    epochs_go_by(process, night, n_epochs)
    time.sleep(seconds)
    ran, sent = process.is_alive(), time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
    process.join(30)
    while group_is_alive(process.pid):
        assert time.monotonic() - sent < 30
        time.sleep(0.002)
    took = time.monotonic() - sent
    assert process.exitcode == (-number if ran else 0), night.log.read_text()
    assert "Traceback" not in night.log.read_text()
    left = checkpoints(night)
    for path in left:
        assert container.verify(path)
    night.succeeds()
    assert night.log.read_text().count("goes on after epoch") == bool(left)
    tonight.check(night)
    shutil.rmtree(folder)
    return took, bool(left)


@rounds(2, 50)
def test_a_job_that_is_told_to_stop_does_so_and_goes_on_from_its_checkpoint(tonight, tmp_path, figure, n):
    rng = random.Random(6)
    done = []
    for at in range(n):
        number = (signal.SIGTERM, signal.SIGINT)[at % 2]
        flags = ("--workers", "2") if at % 4 > 1 or n == 2 else ()
        moment = (rng.randrange(1, 10), rng.random() * 0.03)
        done.append(stopped(tonight, tmp_path / str(at), number, *moment, *flags))
    slowest = max(took for took, _ in done)
    resumed = sum(there for _, there in done)
    figure(f"6 stops: {n} by SIGTERM and SIGINT, slowest end {slowest:.2f} s, no orphan; {resumed} resumed, {n} equal")
    assert slowest < 5
    assert resumed >= n * 0.9
