"""Suite 5: runs that overlap: each result is built once, nobody reads a mixture, no lock outlives its holder."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from nights import ALL_CALLS, NEXT_DATE, TONIGHT, Fault, Tonight, group_is_alive, reading, rounds, told
from test_stops import epochs_go_by

from pipeline.locks import held

STARTED_TWICE, DONE = 10, 0
HOLD_WITH_A_CHILD = """
import os, sys, time
from pathlib import Path
from pipeline.locks import held
with held(Path(sys.argv[1])):
    if os.fork():
        print("held", flush=True)
    time.sleep(60)
"""


def commands(kind: str, n: int) -> list[tuple[str, ...]]:
    """Return the flags of n runs that overlap; the first two are the same command."""
    if kind == "same":
        days = [f"2026-12-{at:02}" for at in range(1, n)]
        return [("ScoreCatalog", "--date", date) for date in (days[0], *days)]
    return [(*TONIGHT, "--training-seed", str(seed)) for seed in (1, *range(1, n))]


def overlapped(tonight: Tonight, folder, kind: str, n: int, rng: random.Random) -> tuple[Counter[int], int]:
    """Run n commands at once; return how often each exit code came, and how many directories were built."""
    night = tonight.yesterday.copy(folder)
    with reading(night) as reader:
        processes = []
        for flags in commands(kind, n):
            processes.append(night.begin(*flags, fault=Fault(ALL_CALLS)))
            time.sleep(rng.random() * 0.1)
        for process in processes:
            process.join(300)
    codes = [process.exitcode for process in processes]
    with told(night, (kind, n, codes)):
        assert codes[2:] == [DONE] * (n - 2)
        assert sorted(codes[:2]) in ([DONE, DONE], [DONE, STARTED_TWICE])
        assert reader.errors == []
        assert reader.n_reads > 0
        built = Counter(
            line for line in night.calls() if line.startswith("rename") and "." not in line and "latest" not in line
        )
        assert set(built.values()) == {1}
        night.verify()
        assert night.unfinished() == []
    shutil.rmtree(folder)
    return Counter(codes), len(built)


@rounds(1, 100)
def test_runs_that_overlap_build_each_result_once(faults, tonight, tmp_path, figure, n):
    rng, codes, n_built = random.Random(5), Counter(), 0
    kinds = (
        (("same", 2), ("different", 2), ("same", 10), ("different", 10)) if n > 2 else (("same", 3), ("different", 2))
    )
    for at in range(n):
        found, built = overlapped(tonight, tmp_path / str(at), *kinds[at % len(kinds)], rng)
        codes += found
        n_built += built
    figure(
        f"5 overlapping runs: {n} rounds, {codes.total()} runs: {codes[DONE]} ended with 0, {codes[STARTED_TWICE]} of "
        f"the same command with 10; {n_built} directories, each built once; no mixture read"
    )


@rounds(1, 20)
def test_a_lock_is_free_when_its_holder_was_killed_though_a_child_lives_on(tmp_path, figure, n):
    slowest = 0.0
    for _ in range(n):
        command = [sys.executable, "-c", HOLD_WITH_A_CHILD, str(tmp_path / "lock")]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        killed = time.monotonic()
        with held(tmp_path / "lock"):
            slowest = max(slowest, time.monotonic() - killed)
            assert group_is_alive(holder.pid)  # the child
        os.killpg(holder.pid, signal.SIGKILL)
        holder.communicate()
    figure(f"5 locks: {n} holders killed whose child lived on, free after {slowest:.2f} s at most")
    assert slowest < 1


@rounds(1, 10)
def test_luigi_killed_alone_takes_its_worker_along(tonight, tmp_path, figure, n):
    slowest = 0.0
    for at in range(n):
        night = tonight.yesterday.copy(tmp_path / str(at))
        process = night.begin(*TONIGHT, "--workers", "2")
        epochs_go_by(process, night, 2)
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        while group_is_alive(process.pid):
            assert time.monotonic() - killed < 30
            time.sleep(0.005)
        slowest = max(slowest, time.monotonic() - killed)
        process.join()
        night.succeeds("ScoreCatalog", "--date", NEXT_DATE)
        tonight.check(night)
    figure(f"5 orphans: {n} times Luigi alone was killed, its worker was gone after {slowest:.2f} s at most")
    assert slowest < 1
