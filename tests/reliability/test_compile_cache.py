"""Suite 11: what the engine compiles, shared by runs at once and killed while it is written: the next run succeeds."""

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from nights import TONIGHT, Night, group_is_alive, rounds


def n_files(cache: Path) -> int:
    # Path.rglob fails where a directory goes meanwhile.
    return sum(len(files) for _, _, files in os.walk(cache))


def killed_while_it_compiles(night: Night, cache: Path, seconds: float) -> int:
    """Start the command with an empty cache, kill it some time after it began to fill it, and return its files."""
    process = night.start(*TONIGHT)
    while process.poll() is None and not n_files(cache):
        time.sleep(0.01)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    while group_is_alive(process.pid):
        time.sleep(0.001)
    return n_files(cache)


# These are commands as a user gives them: the server has its engine, and the directory of that, already.
@rounds(1, 20)
def test_a_cache_that_was_killed_while_it_was_written_serves_the_next_run(tonight, tmp_path, figure, n):
    rng, cache, written = random.Random(11), tmp_path / "cache", []
    for at in range(n):
        shutil.rmtree(cache, ignore_errors=True)
        night = tonight.yesterday.copy(tmp_path / str(at))
        night.environment = {"XDG_CACHE_HOME": str(cache)}
        written.append(killed_while_it_compiles(night, cache, rng.random() * 4))
        code, _, said = night.run(*TONIGHT)
        assert code == 0, said
        tonight.check(night)
    figure(f"11 compile cache: killed at {n} moments, with {min(written)} to {max(written)} files: {n} next runs equal")


@pytest.mark.reliability
def test_two_runs_at_once_share_a_cache_that_is_empty(tonight, tmp_path, figure):
    for at in range(5):
        pair = [tonight.yesterday.copy(tmp_path / f"{at}-{name}") for name in "ab"]
        for night in pair:
            night.environment = {"XDG_CACHE_HOME": str(tmp_path / f"cache-{at}")}
        processes = [night.start(*TONIGHT) for night in pair]
        for night, process in zip(pair, processes, strict=True):
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
            tonight.check(night)
    figure("11 compile cache: two runs began with an empty one, 5 times: all equal")
