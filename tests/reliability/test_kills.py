"""Suite 1: the whole process group is killed at any moment, and the next run makes it good."""

import random
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from nights import Tonight, kill, reading, rounds
from small_job import STAGES

WINDOWS = (*STAGES, "end")


def killed_in(tonight: Tonight, folder, stage: str, share: float) -> tuple[bool, int]:
    """Kill a job within a stage, run it again, and check all; return whether it was still running, and reads."""
    night = tonight.yesterday.copy(folder)
    place = WINDOWS.index(stage)
    before = WINDOWS[place - 1] if place else None
    began = tonight.ends[before] if before else 0.0
    awaited = night.root / tonight.published_by(before) if before else None
    with reading(night) as reader:
        process = night.begin()
        while awaited and process.is_alive() and not awaited.exists():
            time.sleep(0.001)
        time.sleep(share * (tonight.ends[stage] - began))
        in_time = kill(process)
        night.verify()
        assert set(night.content()) <= set(tonight.expected)
        night.succeeds()
    assert reader.errors == []
    assert reader.runs <= tonight.runs
    tonight.check(night)
    shutil.rmtree(folder)
    return in_time, reader.n_reads


@rounds(3, 200)
def test_a_job_killed_at_any_moment_is_made_good_by_the_next_run(tonight, tmp_path, figure, n):
    rng = random.Random(7)
    moments = [(WINDOWS[number % len(WINDOWS)], rng.random()) for number in range(n)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(killed_in, tonight, tmp_path / str(at), *moment) for at, moment in enumerate(moments)]
        done = [job.result() for job in jobs]
    in_time = Counter(stage for (stage, _), (running, _) in zip(moments, done, strict=True) if running)
    where = ", ".join(f"{stage} {in_time[stage]}" for stage in WINDOWS)
    reads = sum(n_reads for _, n_reads in done)
    figure(f"1 kills: {n}, {in_time.total()} of a running job ({where}): {n} equal")
    figure(f"1 reads meanwhile: {reads:,}, none partial or mixed")
    assert in_time.total() > n * 0.7
