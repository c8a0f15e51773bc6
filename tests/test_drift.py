"""Drift: the measures by hand, and what a run does when a catalog has moved."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_catalog import GOOD, HEADER, clean_csv
from small_job import write_items

from pipeline import artifacts, pointers
from pipeline.config_catalog import CleanSettings
from pipeline.drift import check_drift, compare, jensen_shannon
from pipeline.errors import CatalogError


def published(folder: Path, text: str) -> Path:
    """Publish the clean catalog of a CSV."""
    folder.mkdir()
    cleaned = clean_csv(folder, text).folder

    def copy(target: Path) -> None:
        for file in cleaned.iterdir():
            (target / file.name).write_bytes(file.read_bytes())

    artifacts.publish(folder / "published", copy, work=folder / "work", facts={"settings": {}, "stage_version": 1})
    return folder / "published"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return published(tmp_path / "before", f"{HEADER}\n{GOOD}")


def test_the_distance_is_0_for_equal_shares_1_for_foreign_ones_and_known_between():
    # p = (1, 0), q = (1/2, 1/2): middle (3/4, 1/4); KL(p, m) = log2(4/3), KL(q, m) = (log2(2/3) + log2 2) / 2.
    expected = np.sqrt((np.log2(4 / 3) + (np.log2(2 / 3) + 1) / 2) / 2)
    assert jensen_shannon(np.array([7, 0]), np.array([2, 2])) == pytest.approx(expected)
    assert jensen_shannon(np.array([0, 3]), np.array([9, 0])) == 1
    assert jensen_shannon(np.array([3, 6]), np.array([1, 2])) == 0
    assert jensen_shannon(np.array([0, 0]), np.array([1, 2])) == 0


def test_a_catalog_is_no_distance_from_itself(before):
    assert [moved.value for moved in compare(before, before, CleanSettings())] == [0, 0, 0, 0]


def test_rows_and_unseen_tags_are_counted(tmp_path, before):
    now = published(tmp_path / "now", f"{HEADER}\n{GOOD}4,Night,zombies;fog,Horror,Zombies\n")
    found = {moved.measure: moved for moved in compare(now, before, CleanSettings())}
    assert found["max_row_change"].value == pytest.approx(1 / 3)
    assert found["max_unseen_share"].value == pytest.approx(1 / 7)  # zombies 3, mall, bunker, new york; fog is new
    assert "tags that it did not have 14% ('fog' 1)" in found["max_unseen_share"].text
    assert found["max_label_distance"].value > 0


def test_what_moved_too_far_is_said_unless_it_is_accepted(tmp_path, before):
    now = published(tmp_path / "now", f"{HEADER}\n1,A,war,Drama,War\n2,B,war,Drama,Front\n")
    with pytest.raises(CatalogError, match=r"held: .*'war' 2.*max_unseen_share = 0.25.*'Drama' 0 -> 2.*accept-drift"):
        check_drift(CleanSettings(), {"clean": now}, {"clean": before}, tmp_path, run="f00d")
    accepting = CleanSettings(accept_drift=True)
    check_drift(accepting, {"clean": now}, {"clean": before}, tmp_path, run="f00d")
    told = json.loads((tmp_path / "drift.json").read_text())
    assert told["last_published_run"] == "f00d"
    assert len(told["accepted"]) == 3  # the rows went from 3 to 2, which is within the limit


def test_a_moved_catalog_is_held_with_30_nothing_after_it_runs_and_accepting_lets_it_through(project):
    before, latest = project.results(), pointers.latest(project.root)
    write_items(project.folder / "items.csv", n=90)
    code, _, err = project.run("ScoreCatalog", "--date", "2026-11-24")
    assert code == 30
    assert "CheckDrift: held: the catalog has moved since run" in err and "items 31 -> 91 (194%)" in err
    assert project.stages_since(before) == ["clean"]
    assert pointers.latest(project.root) == latest
    project.score("--clean-accept-drift", "true", date="2026-11-24")
    assert project.stages_since(before) == ["clean", "features", "train", "export", "score"]
    project.score(date="2026-11-25")  # the accepted run is the baseline from here on
    assert pointers.latest(project.root).date == "2026-11-25"


def test_the_baseline_is_the_run_that_the_plan_froze(project):
    write_items(project.folder / "items.csv", n=90)
    assert project.run("ScoreCatalog", "--date", "2026-11-24")[0] == 30
    (plan,) = (project.root / "plan").glob("2026-11-24-*.json")
    assert json.loads(plan.read_text())["last_published_run"] == pointers.latest(project.root).run
    assert project.run("ScoreCatalog", "--date", "2026-11-24")[0] == 30


def test_other_settings_are_no_drift(project):
    write_items(project.folder / "items.csv", n=90)
    project.score("--clean-lowercase", "false")


def test_the_limits_change_no_stage(project):
    before = project.results()
    out = project.score("--clean-max-row-change", "9", "--clean-accept-drift", "true")
    assert "nothing to do" in out
    assert project.stages_since(before) == []
