"""The luigi command on a tiny catalog, as a user runs it: what is done again, what is not, and the exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import pytest
from small_job import DATE, PROJECT, STAGES, write_items

from pipeline import artifacts, digests, pointers
from pipeline.summary import accuracy_lines


def test_the_first_run_publishes_five_stages_and_points_to_the_scores(first_run):
    project, _ = first_run
    assert project.stages_since({}) == list(STAGES)
    pointer = pointers.latest(project.root)
    assert pointer is not None
    assert pointer.date == DATE
    assert pointers.read(pointers.of_date(project.root, DATE)) == pointer
    latest = project.root / "published" / "latest"
    assert latest.resolve() == project.root / pointer.folder
    assert (latest / "scores.parquet" / "part-00000.parquet").is_file()
    with h5py.File(latest / "scores.h5") as file:
        assert (file.attrs["run"], file.attrs["model"]) == (pointer.run, pointer.model)
    model = project.root / "published" / "latest_model.h5"
    assert model.resolve() == project.root / "export" / pointer.model / "model.h5"
    assert model.is_file()


def test_the_manifests_name_settings_and_upstreams(first_run):
    project, _ = first_run
    pointer = pointers.latest(project.root)
    score = artifacts.manifest(project.root / pointer.folder)
    export = artifacts.manifest(project.root / "export" / pointer.model)
    assert score["upstreams"]["export"] == pointer.model
    assert sorted(export["upstreams"]) == ["clean", "features", "train"]
    train = artifacts.manifest(project.root / "train" / export["upstreams"]["train"])
    assert train["settings"]["training"]["epochs"] == 1
    assert train["settings"]["training"]["engine"] in ("theano", "pytensor")


def test_nothing_unfinished_is_left(first_run):
    project, _ = first_run
    # digests.json only saves time, and files that are younger than a moment are not in it.
    names = {path.name for path in project.root.iterdir()} - {"digests.json"}
    assert names == {*STAGES, "drift", "gate", "ledger.sqlite", "plan", "published", "work"}
    # Nothing is being built and nothing waits to be renamed: locks alone are left, and Luigi's file of this process.
    work = {path.relative_to(project.root / "work").as_posix() for path in (project.root / "work").rglob("*")}
    assert {name for name in work if not name.startswith("pid/")} == {
        "pid",
        "plan.lock",
        "published.lock",
        "clean.lock",
        "write.lock",
    }


def test_the_closing_words_tell_rows_accuracy_examples_and_place(first_run):
    project, out = first_run
    pointer = pointers.latest(project.root)
    evaluation = json.loads((project.root / "export" / pointer.model / "evaluation.json").read_text())
    assert "31 read, 31 kept, 0 rejected" in out
    assert "\n".join(accuracy_lines(evaluation)) in out
    assert "  unlabelled: " in out
    assert "artifacts/published/latest/scores.parquet" in out


def test_the_plan_freezes_the_inputs_and_no_run_before_the_first(first_run):
    project, _ = first_run
    pointer = pointers.latest(project.root)
    plan = json.loads((project.root / pointer.plan).read_text())
    assert plan["inputs"] == {"items.csv": digests.sha256_of(project.folder / "items.csv")}
    assert (plan["last_published_run"], plan["last_accepted_model"]) == (None, None)


def test_again_does_nothing_says_so_and_takes_under_two_seconds(project):
    before = project.results()
    started = time.monotonic()
    out = project.score()
    assert time.monotonic() - started < 2
    assert out.startswith(f"ScoreCatalog {DATE}: nothing to do, run ")
    assert out.strip().endswith("stands in artifacts/published/latest")
    assert project.stages_since(before) == []


def test_looking_at_finished_work_imports_no_numerical_library(project):
    code = (
        "import sys, tasks; assert tasks.ScoreCatalog().complete() in (True, False);"
        "print([name for name in ('numpy', 'pandas', 'pyarrow', 'duckdb', 'scipy', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_touching_an_input_changes_nothing(project):
    before = project.results()
    (project.folder / "items.csv").touch()
    assert "nothing to do" in project.score()
    assert project.stages_since(before) == []


def test_an_input_of_the_same_bytes_elsewhere_changes_nothing(project):
    before = project.results()
    (project.folder / "items.csv").rename(project.folder / "renamed.csv")
    assert "nothing to do" in project.score("--catalog-items", "renamed.csv")
    assert project.stages_since(before) == []


def test_another_date_is_only_a_pointer_and_an_older_one_does_not_move_latest(project):
    before = project.results()
    run = pointers.latest(project.root).run
    project.score(date="2026-11-24")
    project.score(date="2026-11-22")
    assert project.stages_since(before) == []
    assert pointers.latest(project.root).date == "2026-11-24"
    for date in ("2026-11-22", DATE, "2026-11-24"):
        assert pointers.read(pointers.of_date(project.root, date)).run == run
    plan = json.loads((project.root / pointers.latest(project.root).plan).read_text())
    assert plan["last_published_run"] == run


def test_a_range_of_dates_fills_the_days_without_results(project):
    before = project.results()
    code, _, err = project.run(
        *("RangeDaily", "--of", "ScoreCatalog", "--start", "2026-11-20", "--stop", "2026-11-24", "--days-back", "99999")
    )
    assert code == 0, err
    assert project.stages_since(before) == []
    dates = sorted(path.stem for path in (project.root / "published").glob("2*.json"))
    assert dates == ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]
    assert pointers.latest(project.root).date == DATE


def test_a_range_of_dates_leaves_the_past_alone_under_other_settings(project):
    run = pointers.latest(project.root).run
    days = ("--start", "2026-11-22", "--stop", "2026-11-24", "--days-back", "99999")
    code, _, err = project.run("RangeDaily", "--of", "ScoreCatalog", *days, "--scoring-n-best", "1")
    assert code == 0, err
    assert pointers.read(pointers.of_date(project.root, DATE)).run == run
    assert pointers.read(pointers.of_date(project.root, "2026-11-22")).run != run


def test_a_change_of_scoring_runs_stage_5_only(project):
    before = project.results()
    project.score("--scoring-n-best", "1")
    assert project.stages_since(before) == ["score"]


def test_a_change_of_training_runs_stages_3_to_5(project):
    before = project.results()
    project.score("--training-seed", "8")
    assert project.stages_since(before) == ["train", "export", "score"]


def test_a_changed_byte_of_the_input_runs_all(project):
    before = project.results()
    write_items(project.folder / "items.csv", first="living dead")
    project.score()
    assert project.stages_since(before) == list(STAGES)


def test_another_catalog_to_score_is_cleaned_and_scored(project):
    before = project.results()
    (project.folder / "other.csv").write_text("item_id,title,tags\na,film a,zombie;gore\nb,film b,\n")
    out = project.score("--scoring-items", "other.csv")
    assert project.stages_since(before) == ["clean", "score"]
    assert "to learn from  31 read" in out
    assert "to score       2 read" in out


def test_an_absent_input_ends_with_20_before_any_work(project):
    before = project.results()
    plans = list((project.root / "plan").iterdir())
    code, _, err = project.run(
        "ScoreCatalog", "--date", DATE, "--scoring-items", "absent-*.csv", "--training-seed", "9"
    )
    assert code == 20
    assert "input: absent-*.csv: no such file" in err
    assert "[scoring] items" in err
    assert project.stages_since(before) == []
    assert list((project.root / "plan").iterdir()) == plans


def test_a_stage_that_fails_ends_with_30_one_clear_line_and_nothing_published(project):
    before = project.results()
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    latest = pointers.latest(project.root)
    code, _, err = project.run()
    assert code == 30
    assert "CleanTags: items.csv" in err
    assert "Traceback" not in err
    assert project.stages_since(before) == []
    assert pointers.latest(project.root) == latest


def test_a_wrong_setting_ends_with_40(project):
    code, _, err = project.run("ScoreCatalog", "--training-epochs", "0")
    assert code == 40
    assert err == "settings: [training] epochs = 0: Input should be greater than or equal to 1\n"


def test_a_wrong_flag_ends_with_40_and_the_right_one(project):
    code, _, err = project.run("ScoreCatalog", "--trainnig-epochs", "2")
    assert code == 40
    assert err == "settings: --trainnig-epochs: no such flag; did you mean '--training-epochs'?\n"


def test_a_run_killed_in_training_leaves_nothing_that_looks_complete_and_only_the_rest_is_run_again(project):
    """Meanwhile the same command ends with 10."""
    before = project.results()
    flags = ("ScoreCatalog", "--date", DATE, "--features-max-tags", "9")
    process = project.start(*flags)
    deadline = time.monotonic() + 60
    while project.stages_since(before) != ["features"] or not list((project.root / "work").glob("*/build")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert project.run(*flags)[0] == 10
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert project.stages_since(before) == ["features"]
    killed = project.results()
    assert project.run(*flags)[0] == 0
    assert project.stages_since(killed) == ["train", "export", "score"]
    assert list((project.root / "work").glob("*/build")) == []


@pytest.mark.reliability
def test_a_run_killed_after_an_epoch_goes_on_from_it_and_leaves_no_checkpoint_behind(project):
    flags = ("ScoreCatalog", "--date", DATE, "--training-epochs", "400", "--training-patience", "400")
    process = project.start(*flags)
    while not list((project.root / "work").glob("*/checkpoint.h5")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, _, err = project.run(*flags)
    assert code == 0, err
    assert "TrainModel    goes on after epoch " in err
    assert list((project.root / "work").glob("*/checkpoint.h5*")) == []


def test_two_runs_at_once_build_each_stage_once_and_both_succeed(project):
    before = project.results()
    dates = ("2026-11-24", "2026-11-25")
    runs = [project.start("ScoreCatalog", "--date", date, "--training-seed", "8") for date in dates]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    assert project.stages_since(before) == ["train", "export", "score"]
    assert pointers.latest(project.root).date == "2026-11-25"
    assert list((project.root / "work").glob("*/build")) == []


OVERTAKEN = """
import dataclasses, datetime, luigi
from pipeline import pointers
from tasks.score import ScoreCatalog

task = ScoreCatalog(date=datetime.date(2026, 11, 24))
assert not task.complete()
assert luigi.build([task], local_scheduler=True)
(mine,) = [found for found in pointers.of_dates(task.root) if found.date == "2026-11-24"]
pointers.point(task.root, dataclasses.replace(mine, run="0" * 64))
assert task.complete()
"""


def test_a_run_stays_done_where_another_of_its_date_has_pointed_since(project):
    command = [sys.executable, "-c", OVERTAKEN]
    done = subprocess.run(command, cwd=project.folder, env=project.known_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "flags", "stage"),
    [
        ("clean/*/items.parquet", ("--features-max-tags", "9"), "CheckDrift"),
        ("clean/*/statistics.json", ("--scoring-n-best", "2"), "CheckDrift|CheckModel"),
        ("export/*/evaluation.json", ("--scoring-n-best", "2"), "CheckDrift|CheckModel"),
    ],
)
def test_a_published_file_that_changed_is_found_before_it_is_used(project, file, flags, stage):
    (path,) = project.root.glob(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before, latest = project.results(), pointers.latest(project.root)
    code, _, err = project.run("ScoreCatalog", "--date", DATE, *flags)
    assert code == 30
    told = re.escape(f"{path.relative_to(project.folder)}: has changed since it was published; run the same")
    assert re.search(rf"\b({stage}): {told}", err), err
    assert "Traceback" not in err
    assert project.stages_since(before) == []
    assert pointers.latest(project.root) == latest
    project.score(*flags)
    assert path.parts[-3] in project.stages_since(before)


def test_what_is_no_date_ends_with_40_and_one_line(project):
    code, _, err = project.run("ScoreCatalog", "--date", "2026-13-45")
    assert code == 40
    assert "--date 2026-13-45: is not a date as YYYY-MM-DD" in err
    assert "Traceback" not in err


def test_what_is_wrong_with_the_catalog_to_score_is_told_before_training(project):
    (project.folder / "new.csv").write_text("item_id,tags\n1,zombie\n")
    before = project.results()
    code, _, err = project.run("ScoreCatalog", "--scoring-items", "new.csv", "--network-hidden", "5")
    assert code == 30
    assert "new.csv: there is no column 'title'" in err
    assert project.stages_since(before) == []


def test_training_that_diverges_publishes_nothing(project):
    before = project.results()
    code, _, err = project.run("ScoreCatalog", "--date", DATE, "--training-learning-rate", "1e30")
    assert code == 30
    assert "TrainModel: training diverged in epoch 1" in err
    assert project.stages_since(before) == []


def test_settings_that_were_in_force_before_give_the_date_its_earlier_run_back(project):
    run = pointers.latest(project.root).run
    project.score("--scoring-n-best", "1")
    assert pointers.read(pointers.of_date(project.root, DATE)).run != run
    before = project.results()
    project.score()
    assert project.stages_since(before) == []
    assert pointers.read(pointers.of_date(project.root, DATE)).run == pointers.latest(project.root).run == run


def test_a_damaged_pointer_of_the_date_is_written_anew(project):
    path = pointers.of_date(project.root, DATE)
    pointer = pointers.read(path)
    path.write_text("{")
    project.score()
    assert pointers.read(path) == pointer
