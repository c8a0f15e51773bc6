"""A plan is kept twice: what is damaged of it is written again, and a plan that is lost is made anew."""

import shutil

import pytest
from small_job import Project, write_items

from pipeline import plans, pointers
from pipeline.errors import ArtifactError
from tasks.__main__ import main as look_after

PLAN = {"date": "2026-11-23", "last_published_run": "r1"}
NEXT_DATE = "2026-11-24"


@pytest.fixture
def plan(tmp_path):
    """The two files of a plan."""
    path = tmp_path / "plan" / "2026-11-23-f1.json"
    plans.write_plan(path, PLAN, work=tmp_path / "work")
    return plans.both(path)


def harm(file, kind):
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(
            {"cut": file.read_bytes()[:-1], "empty": b"", "flipped": b"\xff" + file.read_bytes()[1:]}[kind]
        )


def test_before_it_is_written_there_is_none(tmp_path):
    assert plans.read_plan(tmp_path / "plan" / "a.json") is None
    assert plans.places(tmp_path) == plans.mend(tmp_path) == list(plans.damages(tmp_path)) == []


def test_both_files_say_the_same(plan, tmp_path):
    assert plan[0].read_bytes() == plan[1].read_bytes()
    assert plans.read_plan(plan[0]) == PLAN
    assert plans.places(tmp_path) == [plan[0]]
    assert plans.mend(tmp_path) == []


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", ["gone", "cut", "empty", "flipped"])
def test_one_that_is_whole_is_enough_to_read_it_and_to_write_the_other_again(plan, tmp_path, which, kind):
    before = plan[0].read_bytes()
    harm(plan[which], kind)
    assert plans.read_plan(plan[0]) == PLAN
    assert plans.places(tmp_path) == [plan[0]]
    (damage,) = plans.damages(tmp_path)
    assert damage.startswith(f"{plan[which]}: is not a plan (")
    (told,) = plans.mend(tmp_path)
    assert told == f"plan: {plan[which]}: was damaged or gone, and is written again from its copy"
    assert [file.read_bytes() for file in plan] == [before, before]
    assert list(plans.damages(tmp_path)) == []


@pytest.mark.parametrize("kinds", [("cut", "gone"), ("gone", "empty"), ("flipped", "flipped")])
def test_where_neither_is_whole_the_plan_is_removed_and_that_is_told(plan, tmp_path, kinds):
    for file, kind in zip(plan, kinds, strict=True):
        harm(file, kind)
    with pytest.raises(ArtifactError, match=r"is not a plan .*; the next run of its date removes it and plans anew"):
        plans.read_plan(plan[0])
    (told,) = plans.mend(tmp_path)
    assert told.endswith("was damaged, and its copy too; the next run of its date plans anew")
    assert plans.read_plan(plan[0]) is None
    assert plans.places(tmp_path) == []


# --- the luigi command


@pytest.fixture(scope="module")
def second_day(first_run, tmp_path_factory) -> Project:
    """A project with the runs of two dates, the second of which lists what has changed since the first."""
    project = Project(tmp_path_factory.mktemp("second") / "project")
    shutil.copytree(first_run[0].folder, project.folder, symlinks=True)
    write_items(project.folder / "items.csv", first="living dead")
    project.score(date=NEXT_DATE)
    return project


@pytest.fixture
def again(second_day, tmp_path) -> Project:
    shutil.copytree(second_day.folder, tmp_path / "again", symlinks=True)
    return Project(tmp_path / "again")


def test_the_next_run_writes_a_damaged_plan_of_any_date_again_and_runs_no_stage(again):
    before, files = again.results(), [plans.both(path) for path in plans.places(again.root)]
    assert len(files) == 2
    contents = [file.read_bytes() for pair in files for file in pair]
    harm(files[0][1], "cut")
    harm(files[1][0], "gone")
    assert look_after(["verify", "--storage-root", str(again.root)]) == 1
    code, out, err = again.run("ScoreCatalog", "--date", NEXT_DATE)
    assert (code, again.results()) == (0, before)
    assert "nothing to do" in out
    assert err.count("is written again from its copy") == 2
    assert [file.read_bytes() for pair in files for file in pair] == contents
    assert look_after(["verify", "--storage-root", str(again.root)]) == 0


@pytest.mark.parametrize("kind", ["gone", "cut"])
def test_a_plan_that_is_lost_is_made_anew_and_the_date_keeps_its_results(again, kind):
    before, place = again.results(), pointers.of_date(again.root, NEXT_DATE)
    pointer = pointers.read(place)
    assert pointer.changes is not None
    for file in plans.both(again.root / pointer.plan):
        harm(file, kind)
    assert look_after(["verify", "--storage-root", str(again.root)]) == 1
    code, _, err = again.run("ScoreCatalog", "--date", NEXT_DATE)
    assert code == 0, err
    assert ("its copy too" in err) == (kind == "cut")
    assert again.results() == before
    assert pointers.read(place) == pointers.latest(again.root) == pointer
    assert plans.read_plan(again.root / pointer.plan)["last_published_run"] == pointer.run
    assert look_after(["verify", "--storage-root", str(again.root)]) == 0
