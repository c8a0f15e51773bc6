"""The ledger: what it keeps, who may write at once, and that no night hangs on it."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest
from small_job import DATE, STAGES

from pipeline import ledger, pointers, usage
from pipeline.errors import ArtifactError
from pipeline.ledger import Entry

BEGUN = Entry(run="r1", date=DATE, stage="clean", fingerprint="f00d", started="2026-11-23T02:00:00+00:00")
WRITER = """
import sys
from pathlib import Path
from pipeline import ledger
root, name, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(n):
    ledger.write(root, ledger.Entry(run=name, date="d", stage=str(number), fingerprint="f", started="s", result="done"))
    print(number, flush=True)
"""


def start_writer(root, name, n):
    command = [sys.executable, "-c", WRITER, str(root), name, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def raw(root, query):
    with closing(sqlite3.connect(root / ledger.FILE)) as connection:
        return connection.execute(query).fetchall()


# --- by itself


def test_what_ends_takes_the_place_of_what_was_running(tmp_path):
    assert ledger.entries(tmp_path) == []
    ledger.write(tmp_path, BEGUN)
    ended = replace(BEGUN, seconds=1.5, n_rows=31, peak_mb=80.5, children_peak_mb=0.0, result=ledger.DONE)
    ledger.write(tmp_path, ended)
    assert ledger.entries(tmp_path) == [replace(ended, pid=os.getpid())]


def test_entries_stand_in_the_order_in_which_they_were_written_the_last_ones_first_to_be_read(tmp_path):
    for stage in STAGES:
        ledger.write(tmp_path, replace(BEGUN, stage=stage, result=ledger.DONE))
    assert [entry.stage for entry in ledger.entries(tmp_path)] == list(STAGES)
    assert [entry.stage for entry in ledger.entries(tmp_path, last=2)] == ["export", "score"]


def test_a_stage_whose_process_is_gone_was_killed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    ledger.write(tmp_path, BEGUN)
    with closing(sqlite3.connect(tmp_path / ledger.FILE)) as connection, connection:
        connection.execute("UPDATE stages SET pid = ?", (child.pid,))
    assert ledger.entries(tmp_path)[0].result == ledger.KILLED
    ledger.write(tmp_path, replace(BEGUN, run="r2"))
    assert raw(tmp_path, "SELECT run, result FROM stages") == [("r1", "killed"), ("r2", "running")]


def test_a_stage_whose_worker_was_lost_says_so(tmp_path):
    ledger.write(tmp_path, BEGUN)
    ledger.lost(tmp_path, replace(BEGUN, reason="died with exit code -9"))
    (entry,) = ledger.entries(tmp_path)
    assert (entry.result, entry.reason) == ("killed", "died with exit code -9")


def test_six_processes_that_write_at_once_lose_nothing(tmp_path):
    writers = [start_writer(tmp_path, f"w{number}", 20) for number in range(6)]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == ""
    assert raw(tmp_path, "SELECT run, count(*) FROM stages GROUP BY run") == [(f"w{k}", 20) for k in range(6)]


def test_writers_that_are_killed_at_any_moment_leave_a_ledger_that_goes_on(tmp_path):
    rng = random.Random(7)
    for number in range(12):
        writer = start_writer(tmp_path, f"w{number}", 100_000)
        assert writer.stdout.readline() == "0\n"
        time.sleep(rng.random() / 100)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    ledger.write(tmp_path, BEGUN)
    assert raw(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert ledger.entries(tmp_path, last=1)[0].run == "r1"
    assert [path.name for path in tmp_path.iterdir()] == [ledger.FILE]  # no journal is left


def test_a_damaged_ledger_is_named_with_the_remedy(tmp_path):
    (tmp_path / ledger.FILE).write_bytes(b"no database, whatever it is called" * 100)
    for use in (lambda: ledger.write(tmp_path, BEGUN), lambda: ledger.entries(tmp_path)):
        with pytest.raises(ArtifactError, match=r"ledger\.sqlite: cannot be used \(file is not a database\).*move it"):
            use()


def test_a_locked_ledger_is_waited_for_and_then_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "BUSY_SECONDS", 0.2)
    ledger.write(tmp_path, BEGUN)
    with closing(sqlite3.connect(tmp_path / ledger.FILE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ArtifactError, match="database is locked"):
            ledger.write(tmp_path, BEGUN)


def test_the_peak_of_a_stage_is_not_that_of_an_earlier_one():
    code = (
        "from pipeline import usage\n"
        "block = bytearray(200 << 20); before = usage.peak_mb(); del block\n"
        "usage.forget_peak(); print(before > 200, usage.peak_mb() < 100)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True True\n", done.stderr
    subprocess.run([sys.executable, "-c", "bytearray(100 << 20)"], check=True)
    assert usage.children_peak_mb() > 100


# --- the luigi command


def test_a_night_leaves_a_row_for_every_stage(first_run):
    project, _ = first_run
    found = ledger.entries(project.root)
    assert [entry.stage for entry in found] == ["clean", "drift", "features", "train", "export", "gate", "score"]
    assert {entry.result for entry in found} == {"done"}
    assert len({entry.run for entry in found}) == 1
    by_stage = {entry.stage: entry for entry in found}
    assert (by_stage["clean"].n_rows, by_stage["train"].n_rows, by_stage["score"].n_rows) == (31, 18, 31)
    assert by_stage["features"].n_rows == 18  # that they were fitted on
    assert by_stage["score"].fingerprint == pointers.latest(project.root).run
    assert by_stage["score"].reason == "made from these files and settings"
    assert all(20 < entry.peak_mb < 2000 and 0 <= entry.seconds < 120 for entry in found)


def test_again_there_is_a_row_that_says_nothing_to_do(project):
    project.score()
    last = ledger.entries(project.root)[-1]
    assert (last.stage, last.result, last.fingerprint) == ("score", ledger.PRESENT, pointers.latest(project.root).run)


def test_a_stage_that_fails_is_kept_with_its_reason_and_two_workers_write_too(project):
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    assert project.run("ScoreCatalog", "--date", DATE, "--workers", "2")[0] == 30
    last = ledger.entries(project.root)[-1]
    assert (last.stage, last.result, last.n_rows) == ("clean", "failed", None)
    assert last.reason.startswith("items.csv")


def test_a_worker_that_is_killed_is_kept_as_killed(project):
    flags = ("--training-epochs", "4000", "--training-patience", "4000", "--workers", "2")
    process = project.start("ScoreCatalog", "--date", DATE, *flags)
    while not (found := [e for e in ledger.entries(project.root) if e.stage == "train" and e.result == "running"]):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.kill(found[0].pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 30
    (entry,) = [entry for entry in ledger.entries(project.root) if entry.pid == found[0].pid]
    assert (entry.stage, entry.result) == ("train", "killed")
    assert "died unexpectedly with exit code -9" in entry.reason


def test_a_damaged_ledger_stops_no_night(project):
    (project.root / ledger.FILE).write_bytes(b"no database, whatever it is called" * 100)
    code, out, err = project.run("ScoreCatalog", "--date", DATE, "--scoring-n-best", "1")
    assert code == 0
    assert "scored         31 items" in out
    assert err.count("ledger: artifacts/ledger.sqlite: cannot be used (file is not a database)") == 1
