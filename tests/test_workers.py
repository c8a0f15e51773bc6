"""Worker processes: the same bytes however many there are, nothing done twice, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from small_model import AtFirst, make_items, make_model

from pipeline.config import Settings
from pipeline.errors import ArtifactError, ModelError, WorkerError
from pipeline.model import load_model
from pipeline.progress import SILENT, Progress
from pipeline.score_catalog import Effort, score
from pipeline.scored import HEADER, Job, Scorer, Shard
from tasks.config import luigi_workers

PROJECT = Path(__file__).parents[1]
N_ITEMS = 200


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A folder with the results of the stages before: a model, and clean items in groups of rows of 30."""
    root = tmp_path_factory.mktemp("stages")
    make_model().save(root / "model.h5")
    pq.write_table(pa.Table.from_batches([make_items(N_ITEMS)]), root / "items.parquet", row_group_size=30)
    pq.write_table(pa.table({"scope": ["item", "tag"]}), root / "rejects.parquet")
    return root


def settings_of(*, workers, **changes):
    return Settings(scoring={"workers": workers, "batch_size": 8, "part_items": 70, **changes})


def score_into(folder, stages, *, workers, shard_items=16, progress=SILENT, **changes):
    """Score in the folder `build`, beside which the shards are; nothing is too little for processes."""
    (folder / "build").mkdir(parents=True)
    chosen = settings_of(workers=workers, **changes)
    effort = Effort(shard_items=shard_items, few_items=0)
    score(chosen, stages / "model.h5", stages, folder / "build", run="r1", progress=progress, effort=effort)
    return {path.name: path.read_bytes() for path in sorted((folder / "build").rglob("*")) if path.is_file()}


def shard_files(folder):
    """Return when each shard's file was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "shards").glob("*.arrow")}


def children(pid):
    """Return the workers that a process has, by what the kernel says."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = status.with_name("cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == pid and b"pipeline.worker" in command:
            found.append(int(status.parent.name))
    return found


# --- the same bytes


def test_one_two_and_four_workers_give_the_same_bytes(stages, tmp_path):
    one, two, four = (score_into(tmp_path / str(n), stages, workers=n) for n in (1, 2, 4))
    assert set(one) == {"part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "scores.h5"} | {
        "rejects.parquet",
        "summary.json",
    }
    assert one == two == four
    assert score_into(tmp_path / "again", stages, workers=2) == two


@settings(max_examples=5)
@given(shard_items=st.integers(1, 250))
def test_bytes_do_not_depend_on_the_size_of_a_shard(stages, tmp_path_factory, shard_items):
    folder = tmp_path_factory.mktemp("scores")
    whole = score_into(folder / "whole", stages, workers=1, shard_items=N_ITEMS)
    assert score_into(folder / "cut", stages, workers=1, shard_items=shard_items) == whole


def test_workers_are_no_part_of_the_identity():
    from pipeline.identity import significant

    assert significant(settings_of(workers=1), "score") == significant(settings_of(workers=4), "score")


def test_tasks_that_luigi_may_run_at_once_share_the_cores():
    luigi = get_config()
    assert luigi_workers() == 1
    luigi.set("core", "workers", "3")
    try:
        assert luigi_workers() == 3
        with CmdlineParser.global_instance(["ScoreCatalog", "--workers", "2"]):
            assert luigi_workers() == 2
    finally:
        luigi.remove_option("core", "workers")


def test_few_items_are_scored_in_this_process(stages, tmp_path):
    seen = []
    (tmp_path / "build").mkdir()
    progress = AtFirst(lambda: seen.extend(children(os.getpid())))
    score(settings_of(workers=4), stages / "model.h5", stages, tmp_path / "build", run="r1", progress=progress)
    assert seen == []
    assert not list((tmp_path / "shards").glob("*.log"))


# --- what is done is not done again


def test_after_a_killed_worker_only_what_is_missing_is_scored(stages, tmp_path):
    killed = []

    def kill_one():
        killed.extend(children(os.getpid())[:1])
        os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(WorkerError) as told:
        score_into(tmp_path, stages, workers=2, progress=AtFirst(kill_one))
    assert "was ended by SIGKILL while it scored items " in str(told.value)
    assert "if memory ran out, set [scoring] workers to fewer, then run the same command again" in str(told.value)
    assert children(os.getpid()) == []
    done = {shard for shard in shard_files(tmp_path) if is_whole(tmp_path, stages, shard)}
    assert 0 < len(done) < 13  # 200 items in shards of 16
    before = shard_files(tmp_path)
    (tmp_path / "build").rename(tmp_path / "failed")
    expected = score_into(tmp_path / "expected", stages, workers=1)
    assert score_into(tmp_path, stages, workers=2) == expected
    after = shard_files(tmp_path)
    assert len(after) == 13
    assert {name for name in after if before.get(name) == after[name]} == done


def job_of(folder, stages):
    return Job.of(stages / "model.h5", stages / "items.parquet", settings_of(workers=1), folder / "shards")


def is_whole(folder, stages, name):
    number = int(name.removeprefix("shard-").removesuffix(".arrow"))
    return job_of(folder, stages).is_done(Shard(number, 16 * number, min(16 * number + 16, N_ITEMS)))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "header"])
def test_a_damaged_shard_is_scored_again_and_no_other(stages, tmp_path, damage):
    expected = score_into(tmp_path, stages, workers=1)
    before = shard_files(tmp_path)
    path = tmp_path / "shards" / "shard-000003.arrow"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[HEADER + 100] ^= 1
    path.write_bytes({"cut": content[:-1], "empty": b"", "header": content[1:]}.get(damage, content))
    (tmp_path / "build").rename(tmp_path / "old")
    assert score_into(tmp_path, stages, workers=1) == expected
    after = shard_files(tmp_path)
    assert {name for name in after if before[name] != after[name]} == {"shard-000003.arrow"}


def test_shards_of_other_settings_or_of_another_model_are_scored_again(stages, tmp_path):
    score_into(tmp_path, stages, workers=1)
    for n, change in enumerate(({"n_best": 1}, {"decoding": "raw"})):
        before = shard_files(tmp_path)
        (tmp_path / "build").rename(tmp_path / f"old{n}")
        scores = score_into(tmp_path, stages, workers=1, **change)
        assert scores == score_into(tmp_path / f"fresh{n}", stages, workers=1, **change)
        after = shard_files(tmp_path)
        assert all(before[name] != after[name] for name in after)
    job = job_of(tmp_path, stages)
    shard = Shard(0, 0, 16)
    Scorer(job).score(shard)
    assert job.is_done(shard)
    make_model(seed=8).save(tmp_path / "other.h5")
    other = Job.of(tmp_path / "other.h5", stages / "items.parquet", settings_of(workers=1), tmp_path / "shards")
    assert not other.is_done(shard)


def test_a_shard_that_changes_between_is_told(stages, tmp_path):
    score_into(tmp_path, stages, workers=1)
    job = job_of(tmp_path, stages)
    path = job.path(Shard(0, 0, 16))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"shard-000000\.arrow: has changed since it was written"):
        job.read(Shard(0, 0, 16))


# --- what goes wrong


def test_what_a_worker_meets_is_told_as_it_is(stages, tmp_path):
    """Its model file is another one than when the job began."""
    (tmp_path / "model.h5").write_bytes((stages / "model.h5").read_bytes())
    job = Job.of(tmp_path / "model.h5", stages / "items.parquet", settings_of(workers=2), tmp_path)
    (tmp_path / "model.h5").write_bytes(b"something else")
    from pipeline.crew import score_shards

    with pytest.raises(ArtifactError, match=r"model\.h5: has changed since the job began"):
        list(score_shards(job, [Shard(0, 0, 16), Shard(1, 16, 32)], n_workers=2))
    assert children(os.getpid()) == []
    with pytest.raises(ModelError):
        load_model(tmp_path / "model.h5")


def test_a_worker_that_cannot_start_is_told_with_its_last_words(stages, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "no number")
    with pytest.raises(WorkerError, match=r"ended with exit code 1 while it scored items [\d,]+ to .*it said: \w"):
        score_into(tmp_path, stages, workers=2)


SLOWLY = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_model import AtFirst
from test_workers import score_into

def wait():
    print("working", flush=True)
    time.sleep(60)

score_into(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, progress=AtFirst(wait))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_no_worker_outlives_the_process_that_started_it(stages, tmp_path, sent):
    command = [sys.executable, "-c", SLOWLY.format(tests=str(PROJECT / "tests")), str(tmp_path), str(stages)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline() == b"working\n"
        workers = children(parent.pid)
        assert len(workers) == 2
        parent.send_signal(sent)
        parent.wait(timeout=30)
    deadline = time.monotonic() + 10
    while alive := [pid for pid in workers if is_running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- wherever it is called from


WITHOUT_GUARD = """
from pathlib import Path
import sys
print("once")
sys.path[:0] = [{project!r}, {tests!r}]
import numpy as np
warmed = np.ones((300, 300)) @ np.ones((300, 300))
from test_workers import score_into
result = score_into(Path(sys.argv[1] if len(sys.argv) > 1 else {folder!r}), Path({stages!r}), workers=2)
"""


@pytest.mark.parametrize("how", ["script", "interactive"])
def test_a_script_needs_no_guard_and_neither_does_an_interactive_session(stages, tmp_path, how):
    code = WITHOUT_GUARD.format(
        project=str(PROJECT), tests=str(PROJECT / "tests"), folder=str(tmp_path / "scores"), stages=str(stages)
    )
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "pipeline").mkdir()  # a folder of that name where the user works is not the package
    (tmp_path / "pipeline" / "worker.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "script.py", "scores"] if how == "script" else [sys.executable, "-i"]
    text = None if how == "script" else code
    done = subprocess.run(command, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"
    assert json.loads((tmp_path / "scores" / "build" / "summary.json").read_text())["n_items"] == N_ITEMS


def test_a_thread_of_a_notebook_may_ask(stages, tmp_path):
    thread = threading.Thread(target=score_into, args=(tmp_path, stages), kwargs={"workers": 2})
    thread.start()
    thread.join(timeout=120)
    assert json.loads((tmp_path / "build" / "summary.json").read_text())["n_items"] == N_ITEMS


def test_progress_says_how_many_items_a_second(stages, tmp_path):
    seen = []

    class Told(Progress):
        def update(self, done, total=None, **facts):
            seen.append((done, total, *facts))

    score_into(tmp_path, stages, workers=1, shard_items=80, progress=Told())
    name = "items_per_second"
    assert seen == [(80, N_ITEMS, name), (160, N_ITEMS, name), (N_ITEMS, N_ITEMS, name)]
