"""What retention keeps and what it removes, on a root of small directories."""

import os
import subprocess
import sys
import time

import pytest
from small_nights import PROJECT, print_of

from pipeline import artifacts, files, leases, plans, pointers, retention, verification
from pipeline.digests import sealed
from pipeline.errors import ArtifactError
from pipeline.locks import held


def test_many_nights_leave_as_many_directories_and_files_as_the_kept_ones(nights):
    n_files = []
    for day in range(1, 13):
        nights.night(f"2026-11-{day:02}", f"night {day}", features=f"night {day}")
        retention.clean(nights.root, keep_runs=3)
        n_files.append(sum(path.is_file() for path in nights.root.rglob("*")))
    assert nights.dates() == ["2026-11-10", "2026-11-11", "2026-11-12"]
    for stage in ("clean", "features", "train", "export", "score", "drift"):
        assert nights.there(stage) == {"night 10", "night 11", "night 12"}, stage
    assert len(plans.places(nights.root)) == 3
    assert len(set(n_files[3:])) == 1
    assert list(verification.damaged_pointers(nights.root)) == []
    assert sorted(pointers.removed(nights.root)) == [f"2026-11-{day:02}" for day in range(1, 10)]


def test_what_kept_runs_share_stays_as_long_as_one_of_them(nights):
    for day in (1, 2, 3):
        nights.night(f"2026-11-0{day}", f"night {day}")
    retention.clean(nights.root, keep_runs=2)
    assert nights.there("train") == {"night 2", "night 3"}
    assert nights.there("features") == {"same"}
    assert nights.there("clean") == {"night 1", "night 2", "night 3"}  # the features were made from the first


def test_a_dry_run_says_what_and_touches_nothing(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    before = sorted(path for path in nights.root.rglob("*") if path.suffix != ".lock")
    told = retention.clean(nights.root, keep_runs=1, dry_run=True)
    assert sorted(found.path.split("/")[0] for found in told) == [
        *("clean", "drift", "export", "features", "plan", "plan", "score", "train")
    ]
    assert sum(found.size for found in told) > 1000
    assert sorted(path for path in nights.root.rglob("*") if path.suffix != ".lock") == before
    assert retention.clean(nights.root, keep_runs=1) == told
    assert retention.clean(nights.root, keep_runs=1) == []


def test_a_backfill_of_old_dates_is_not_thrown_away_at_once_and_the_newest_dates_stay(nights):
    for date in ("2026-11-20", "2026-11-21", "2026-10-01", "2026-10-02"):
        nights.night(date, date, features=date)
        time.sleep(0.01)  # so that the times of two files differ
    retention.clean(nights.root, keep_runs=2)
    assert nights.dates() == ["2026-10-01", "2026-10-02", "2026-11-20", "2026-11-21"]
    nights.night("2026-11-22", "2026-11-22", features="2026-11-22")
    retention.clean(nights.root, keep_runs=2)
    assert nights.dates() == ["2026-10-02", "2026-11-21", "2026-11-22"]


def test_a_pinned_run_stays_however_old(nights):
    first = nights.night("2026-11-01", "first", features="first")
    pointers.pin(nights.root, first)
    for day in (2, 3):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    retention.clean(nights.root, keep_runs=1)
    assert nights.dates() == ["2026-11-01", "2026-11-03"]
    assert pointers.latest(nights.root) == first
    assert nights.there("export") == {"first", "night 3"}
    newest = pointers.release(nights.root)
    assert newest is not None
    assert (newest.date, pointers.latest(nights.root)) == ("2026-11-03", newest)
    retention.clean(nights.root, keep_runs=1)
    assert nights.dates() == ["2026-11-03"]


def test_the_model_that_training_started_from_stays_and_not_what_it_was_made_from(nights):
    first = nights.night("2026-11-01", "first", features="first")
    nights.night("2026-11-02", "second", features="second", start=first.model)
    retention.clean(nights.root, keep_runs=1)
    assert nights.there("export") == {"first", "second"}
    assert nights.there("train") == {"second"}
    assert nights.there("score") == {"second"}


def test_what_was_begun_for_the_newest_date_stays_and_what_was_given_up_before_it_goes(nights):
    nights.night("2026-11-01", "first", features="first")
    for date, name in (("2026-10-31", "given up"), ("2026-11-02", "under way")):
        clean = nights.publish("clean", name)
        stages = {"clean": clean, "train": print_of(f"train {name}")}
        plan = {"date": date, "fingerprint": print_of(name), "stages": stages}
        place = nights.root / "plan" / f"{date}-{plan['fingerprint']}.json"
        files.write_text(place, sealed(plan), work=nights.root / "work")
        work = nights.root / "work" / stages["train"]
        (work / "build").mkdir(parents=True)
        (work / "spark").mkdir()
        (work / "checkpoint.h5").write_text(name)
    told = retention.clean(nights.root, keep_runs=1)
    assert nights.there("clean") == {"first", "under way"}
    assert [path.name[:10] for path in plans.places(nights.root)] == ["2026-11-01", "2026-11-02"]
    under_way, given_up = (nights.root / "work" / print_of(f"train {name}") for name in ("under way", "given up"))
    assert sorted(path.name for path in under_way.iterdir()) == ["checkpoint.h5", "lock"]  # what is half-built is gone
    assert not given_up.exists()
    assert f"work/{given_up.name}" in [found.path for found in told]


def test_work_of_a_living_process_and_its_results_stay_and_go_when_it_is_killed(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    needed = [print_of("cleannight 1"), print_of("trainnew")]
    code = (
        "import sys, time; from pathlib import Path; from pipeline import leases; from pipeline.locks import held\n"
        "root = Path(sys.argv[1]); leases.hold(root, sys.argv[2:])\n"
        "with held(root / 'work' / sys.argv[3] / 'lock'): print('ready', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", code, str(nights.root), *needed]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        retention.clean(nights.root, keep_runs=1)
        assert nights.there("clean") == {"night 1", "night 2"}
        assert nights.there("train") == {"night 2"}
        assert (nights.root / "work" / needed[1]).is_dir()
        process.kill()
    retention.clean(nights.root, keep_runs=1)
    assert nights.there("clean") == {"night 2"}
    assert nights.unlocked() == []


def test_a_running_process_that_could_not_say_what_it_needs_stops_the_removal(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    code = (
        "import sys; from pathlib import Path; from pipeline.locks import held\n"
        "with held(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()"
    )
    path = nights.root / "work" / "in-use-elsewhere-1"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ArtifactError, match="a running process could not say what it needs; try again"):
            retention.clean(nights.root, keep_runs=1)
        process.communicate("")
    assert len(nights.dates()) == 2
    retention.clean(nights.root, keep_runs=1)
    assert len(nights.dates()) == 1


def test_a_full_disk_is_told_when_a_process_says_what_it_needs(nights, monkeypatch):
    def pwrite(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases.os, "pwrite", pwrite)
    with pytest.raises(ArtifactError, match=r"cannot be written \(No space left on device\); free space"):
        leases.hold(nights.root, ["f1"])


def test_this_process_keeps_what_it_needs_itself(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    leases.hold(nights.root, [print_of("exportnight 1")])
    for _ in range(2):  # looking at its own lease does not end it
        retention.clean(nights.root, keep_runs=1)
        assert nights.there("export") == {"night 1", "night 2"}
    # What the model was made from is what the process would need to make it again.
    assert nights.there("train") == {"night 1", "night 2"}
    assert nights.there("score") == {"night 2"}


def test_a_lease_waits_until_retention_has_decided(nights):
    nights.night("2026-11-01", "first")
    code = (
        "import sys, time; from pathlib import Path; from pipeline import leases\n"
        "print('begun', flush=True); leases.hold(Path(sys.argv[1]), ['x']); print('held', time.time(), flush=True)"
    )
    with held(leases.guard(nights.root)):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(nights.root)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        released = time.time()
    said, _ = process.communicate(timeout=30)
    assert float(said.split()[1]) >= released


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(nights):
    nights.night("2026-11-01", "first")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    work = nights.root / "work"
    for process in (dead.pid, os.getpid()):
        (work / f"latest.json.{process}").write_text("{")
    (work / "pid").mkdir()
    (work / "pid" / "a.pid").write_text(f"{dead.pid}\n")
    (work / "pid" / "b.pid").write_text(f"{dead.pid}\n{os.getpid()}\n")
    retention.clean(nights.root, keep_runs=1)
    assert nights.unlocked() == [f"latest.json.{os.getpid()}", "pid"]
    assert [path.name for path in (work / "pid").iterdir()] == ["b.pid"]


def test_what_retention_left_half_removed_goes_the_next_time(nights):
    nights.night("2026-11-01", "first")
    aside = nights.root / "work" / "removed-score-1"
    aside.mkdir()
    (aside / "a").write_text("a")
    assert [found.path for found in retention.clean(nights.root, keep_runs=1, dry_run=True)] == ["work/removed-score-1"]
    retention.clean(nights.root, keep_runs=1)
    assert not aside.exists()


def stop_after(monkeypatch, n: int) -> None:
    """Let n calls that change files succeed, and end the process, as it were, in the next one."""
    calls = iter(range(n))

    def counted(real):
        def call(*arguments, **options):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    for name in ("set_aside", "remove", "write_text"):
        real = counted(getattr(files, name))
        for module in (files, artifacts, pointers):
            monkeypatch.setattr(module, name, real, raising=False)


@pytest.mark.parametrize("step", range(16))
def test_killed_at_any_step_it_leaves_no_pointer_to_nothing_and_the_next_one_ends_what_it_began(
    nights, monkeypatch, step
):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    stop_after(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        retention.clean(nights.root, keep_runs=1)
    monkeypatch.undo()
    # Of a plan the first file may be gone already, and the second not.
    assert [line for line in verification.damaged_pointers(nights.root) if "/plan/" not in line] == []
    assert "2026-11-02" in nights.dates()
    retention.clean(nights.root, keep_runs=1)
    for stage in ("clean", "features", "train", "export", "score", "drift"):
        assert nights.there(stage) == {"night 2"}, stage
    assert nights.dates() == ["2026-11-02"]
    assert list(pointers.removed(nights.root)) == ["2026-11-01"]
    assert nights.unlocked() == []


def test_a_damaged_directory_that_is_kept_stops_the_removal(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    (nights.root / "export" / print_of("exportnight 2") / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"export/.*manifest\.json: cannot be read"):
        retention.clean(nights.root, keep_runs=1)
    assert nights.there("train") == {"night 1", "night 2"}
    assert nights.dates() == ["2026-11-01", "2026-11-02"]


def test_what_a_damaged_directory_was_made_from_stays_for_its_stage_to_make_it_again(nights):
    for day in (1, 2):
        nights.night(f"2026-11-0{day}", f"night {day}", features=f"night {day}")
    artifacts.disown(nights.root / "export" / print_of("exportnight 2"))
    files.remove(nights.root / "plan")  # else the plan names all of them
    retention.clean(nights.root, keep_runs=1)
    for stage in ("clean", "features", "train", "export", "score"):
        assert nights.there(stage) == {"night 2"}, stage


def test_directories_that_are_not_the_jobs_are_left_alone(nights):
    nights.night("2026-11-01", "first")
    for place in ("score/mine", f"mine/{print_of('mine')}", "notes"):
        (nights.root / place).mkdir(parents=True)
    assert retention.clean(nights.root, keep_runs=1) == []
    assert retention.clean(nights.root / "absent", keep_runs=1) == []
    assert (nights.root / "score" / "mine").is_dir()


@pytest.mark.parametrize("content", [b"\0\0\0\0", b"\xff", b"12a", b"9" * 30, b"0", b"-1", b""])
def test_numbers_of_processes_that_a_crash_left_unreadable_are_a_leftover(tmp_path, content):
    (tmp_path / "work" / "pid").mkdir(parents=True)
    (tmp_path / "work" / "pid" / "deadbeef.pid").write_bytes(content)
    (tmp_path / "work" / "pid" / "alive.pid").write_text(f"{os.getpid()}\n")
    (removed,) = retention.clean(tmp_path, keep_runs=1)
    assert removed.path == "work/pid/deadbeef.pid"
