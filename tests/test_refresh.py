"""When a run trains again: the choice by hand, and the luigi command over several days."""

import datetime
import json
import shutil

import pytest
from small_job import DATE, SETTINGS, Project, write_items

from pipeline import artifacts, digests, pointers
from pipeline.config_learning import TrainingSettings
from pipeline.digests import sealed
from pipeline.errors import ArtifactError, SettingsError
from pipeline.refresh import Choice, Origin, choose, planned
from tasks.targets import PlanTarget

PINNED = ("--training-refresh", "pinned")
LAST = Origin(fingerprint="m1", date="2026-11-01", recipe="r", basis="b1", start="m0")


def chosen(day, last=LAST, *, recipe="r", basis="b2", **settings):
    return choose(TrainingSettings(**settings), datetime.date(2026, 11, day), last, recipe=recipe, basis=basis)


# --- the choice


def test_by_default_every_change_trains_from_nothing():
    assert chosen(2) == chosen(2, None) == Choice()


@pytest.mark.parametrize(("day", "model"), [(1, "m1"), (2, "m1"), (7, "m1"), (8, None), (30, None)])
def test_a_model_of_the_first_is_used_for_seven_days(day, model):
    assert chosen(day, refresh="7 days").model == model


def test_it_is_used_for_no_day_before_its_own():
    last = Origin(fingerprint="m1", date="2026-11-05", recipe="r", basis="b1", start=None)
    assert chosen(4, last, refresh="7 days") == Choice()


def test_changed_settings_train_at_once():
    assert chosen(2, recipe="other", refresh="7 days") == Choice()


def test_what_has_not_changed_is_no_old_model_but_the_run_of_today():
    assert chosen(2, basis="b1", refresh="7 days") == Choice()


def test_a_pinned_model_is_used_whatever_changed():
    assert chosen(30, recipe="other", refresh="pinned").model == "m1"
    assert chosen(30, refresh="pinned").reason == "[training] refresh = pinned"


def test_without_a_published_model_pinned_says_what_to_do():
    with pytest.raises(SettingsError, match=r"no model is published yet.*--training-refresh changed"):
        chosen(2, None, refresh="pinned")


def test_a_warm_start_begins_with_the_last_model_if_there_is_one():
    assert chosen(2, warm_start="last") == Choice(start="m1")
    assert chosen(2, None, warm_start="last") == Choice()


def test_a_warm_start_does_not_train_on_where_nothing_has_changed():
    assert chosen(2, basis="b1", warm_start="last") == Choice(start="m0")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"choice": {"model": "m1", "colour": "red"}}'])
def test_a_damaged_plan_is_named_with_the_remedy(tmp_path, content):
    assert planned(tmp_path / "plan.json") is None
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"plan\.json: is not a plan .*; the next run of its date removes it"):
        planned(tmp_path / "plan.json")


def test_a_plan_that_chose_another_model_is_not_followed(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(sealed({"choice": {"model": "m1", "start": None, "reason": "said otherwise"}}))
    assert PlanTarget(path, Choice(model="m1")).exists()
    assert not PlanTarget(path, Choice(start="m1")).exists()
    with pytest.raises(ArtifactError, match=r"another run planned the same date .*; run the same command again"):
        PlanTarget(path, Choice(start="m1")).agrees()


# --- the luigi command


def model_of(project: Project, date: str) -> str:
    return pointers.read(pointers.of_date(project.root, date)).model


@pytest.fixture(scope="module")
def first_day(first_run, tmp_path_factory) -> Project:
    """A project whose model is of 2026-11-23, trained to be used for a week."""
    folder = tmp_path_factory.mktemp("weekly") / "project"
    shutil.copytree(first_run[0].folder, folder, symlinks=True)
    weekly = Project(folder)
    settings = SETTINGS.replace("[training]", "[training]\nrefresh = 7 days")
    (folder / "luigi.cfg").write_text(settings)
    weekly.score()
    return weekly


@pytest.fixture
def week(first_day, tmp_path) -> Project:
    """A copy of it."""
    shutil.copytree(first_day.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def test_new_items_are_only_scored_for_a_week_and_then_learned_from(week):
    before, first = week.results(), model_of(week, "2026-11-23")
    write_items(week.folder / "items.csv", n=33)
    out = week.score(date="2026-11-24")
    assert week.stages_since(before) == ["clean", "score"]
    assert "of 2026-11-23, 1 of 7 days old, [training] refresh = 7 days" in out
    assert "34 read, 34 kept" in out
    assert model_of(week, "2026-11-24") == first
    second_day = (week.folder / "items.csv").read_bytes()
    before = week.results()
    write_items(week.folder / "items.csv", n=36)
    week.score(date="2026-11-30")
    assert week.stages_since(before) == ["clean", "features", "train", "export", "score"]
    assert model_of(week, "2026-11-30") != first
    (week.folder / "items.csv").write_bytes(second_day)
    before = week.results()
    assert "nothing to do" in week.score(date="2026-11-24")  # a repetition, although a later day has trained
    assert week.stages_since(before) == []


def test_a_day_without_new_items_is_only_a_pointer(week):
    before = week.results()
    week.score(date="2026-12-24")
    assert week.stages_since(before) == []


@pytest.mark.slow  # what it chooses is test_changed_settings_train_at_once
def test_changed_settings_of_the_network_train_within_the_week(week):
    before = week.results()
    write_items(week.folder / "items.csv", n=33)
    week.score("--network-hidden", "5", date="2026-11-24")
    assert week.stages_since(before) == ["clean", "features", "train", "export", "score"]


def test_the_items_are_cleaned_by_the_lists_of_the_model(week):
    before = week.results()
    (week.folder / "aliases.txt").write_text("gore -> blood\n")
    week.score("--clean-aliases", "aliases.txt")
    assert "train" in week.stages_since(before)  # rules are no new items: they are learned with at once
    (week.folder / "aliases.txt").write_text("gore -> guts\n")
    before = week.results()
    week.score("--clean-aliases", "aliases.txt", *PINNED, date="2026-11-24")
    assert week.stages_since(before) == ["clean", "score"]
    (cleaned,) = [
        path.parent for path, written in week.results().items() if path.parts[-3] == "clean" and path not in before
    ]
    assert json.loads((cleaned / "tag_lists.json").read_text())["aliases"] == {"gore": "blood"}
    assert not (cleaned / "taxonomy.json").exists()


def test_another_catalog_is_scored_alone_by_a_model_that_is_used_again(week):
    before = week.results()
    write_items(week.folder / "items.csv", n=33)
    (week.folder / "other.csv").write_text("item_id,title,tags\na,film a,zombie;gore\nb,film b,\n")
    out = week.score("--scoring-items", "other.csv", date="2026-11-24")
    assert week.stages_since(before) == ["clean", "score"]
    assert "2 read, 2 kept" in out


def test_drift_is_measured_from_the_catalog_of_yesterday(week):
    write_items(week.folder / "items.csv", n=42)
    week.score(date="2026-11-24")
    write_items(week.folder / "items.csv", n=63)  # half as many again as yesterday; twice as many as the model's
    week.score("--clean-max-row-change", "0.6", date="2026-11-25")
    write_items(week.folder / "items.csv", n=180)
    code, _, err = week.run("ScoreCatalog", "--date", "2026-11-26")
    assert code == 30
    assert "items 64 -> 181" in err


def test_a_pinned_model_never_trains(week):
    before, first = week.results(), model_of(week, "2026-11-23")
    write_items(week.folder / "items.csv", n=33)
    out = week.score(*PINNED, "--network-hidden", "5", date="2027-11-24")
    assert week.stages_since(before) == ["clean", "score"]
    assert model_of(week, "2027-11-24") == first
    assert "of 2026-11-23, [training] refresh = pinned" in out


def test_pinned_before_the_first_model_ends_with_40(week):
    code, _, err = week.run("ScoreCatalog", "--storage-root", "elsewhere", *PINNED)
    assert code == 40
    assert err.startswith("settings: [training] refresh = pinned: no model is published yet")


def test_training_by_name_says_why_there_is_nothing_to_train(week):
    write_items(week.folder / "items.csv", n=33)
    code, _, err = week.run("TrainModel", "--date", "2026-11-24")
    assert code == 40
    assert "this run uses a published model again and has no stage 'train'; --training-refresh changed" in err


def test_a_model_that_is_gone_ends_with_20_and_the_remedy(week):
    write_items(week.folder / "items.csv", n=33)
    week.score(date="2026-11-24")
    shutil.rmtree(week.root / "export" / model_of(week, "2026-11-24"))
    shutil.rmtree(week.root / "score")
    code, _, err = week.run("ScoreCatalog", "--date", "2026-11-24")
    assert code == 20
    assert "is gone or damaged" in err
    assert "--training-refresh changed --training-warm-start '' trains without it" in err


# --- weights to start from


def start_of(project: Project, date: str) -> str | None:
    export = artifacts.manifest(project.root / "export" / model_of(project, date))
    return artifacts.manifest(project.root / "train" / export["upstreams"]["train"])["start"]


def test_training_starts_from_the_model_of_yesterday_and_a_repetition_does_nothing(project):
    first = model_of(project, DATE)
    warm = ("--training-warm-start", "last")
    before = project.results()
    project.score(*warm, date="2026-11-24")
    assert project.stages_since(before) == []  # nothing has changed that could be learned from
    write_items(project.folder / "items.csv", n=33)
    code, _, err = project.run("ScoreCatalog", "--date", "2026-11-25", *warm)
    assert code == 0, err
    assert project.stages_since(before) == ["clean", "features", "train", "export", "score"]
    assert start_of(project, "2026-11-25") == first
    assert f"weights of {first[:12]}" in err
    before = project.results()
    assert "nothing to do" in project.score(*warm, date="2026-11-25")
    project.score(*warm, date="2026-11-26")
    assert project.stages_since(before) == []
    assert model_of(project, "2026-11-26") == model_of(project, "2026-11-25")


def test_training_starts_from_a_model_file_by_its_content(project):
    first = model_of(project, DATE)
    (project.folder / "start.h5").write_bytes((project.root / "published" / "latest_model.h5").read_bytes())
    before = project.results()
    code, _, err = project.run("ScoreCatalog", "--date", DATE, "--training-warm-start", "start.h5")
    assert code == 0, err
    assert f"weights of {first[:12]}" in err
    assert project.stages_since(before) == ["train", "export", "score"]
    assert start_of(project, DATE) == digests.sha256_of(project.folder / "start.h5")
    (project.folder / "start.h5").rename(project.folder / "renamed.h5")
    assert "nothing to do" in project.score("--training-warm-start", "renamed.h5")


def test_a_model_file_to_start_from_that_is_absent_ends_with_20(project):
    code, _, err = project.run("ScoreCatalog", "--date", DATE, "--training-warm-start", "absent.h5")
    assert code == 20
    assert "input: absent.h5: no such file" in err
    assert "[training] warm_start" in err
