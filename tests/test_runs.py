"""Runs are found, gone back to, pinned and forgotten, results invalidated; what is damaged is named."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import artifacts, files, forgetting, invalidation, plans, pointers, retention, runs, verification
from pipeline.errors import ArtifactError

# --- finding runs


def test_a_run_is_found_by_date_by_the_first_digits_and_as_the_latest(nights):
    first, second = (nights.night(f"2026-11-0{day}", f"night {day}") for day in (1, 2))
    assert runs.find(nights.root, None) == second
    assert runs.find(nights.root, "2026-11-01") == first
    assert runs.find(nights.root, first.run[:8]) == first
    assert runs.before_latest(nights.root) == first


def test_a_run_that_is_not_there_is_told_with_those_that_are(nights):
    with pytest.raises(ArtifactError, match="nothing is published yet; run: luigi --module tasks ScoreCatalog"):
        runs.find(nights.root, None)
    first, _ = (nights.night(f"2026-11-0{day}", f"night {day}", features=str(day)) for day in (1, 2))
    with pytest.raises(ArtifactError, match="2026-10-01: nothing is published for this date; there are "):
        runs.find(nights.root, "2026-10-01")
    with pytest.raises(ArtifactError, match="zz: no run has a fingerprint that begins so; there are "):
        runs.find(nights.root, "zz")
    retention.clean(nights.root, keep_runs=1)
    with pytest.raises(ArtifactError, match=r"2026-11-01: its results were removed, as \[storage\] keep_runs says"):
        runs.find(nights.root, "2026-11-01")
    with pytest.raises(ArtifactError, match="no other run stands before"):
        runs.before_latest(nights.root)
    assert not (nights.root / first.folder).exists()


def test_a_run_of_the_same_date_that_was_replaced_can_be_gone_back_to(nights):
    first = nights.night("2026-11-01", "first")
    time.sleep(0.01)
    second = nights.night("2026-11-01", "second")
    assert runs.before_latest(nights.root) == first
    pointers.point(nights.root, first)  # as when the settings of before are in force again
    assert runs.before_latest(nights.root) == second


def test_a_run_that_was_replaced_has_its_changes_and_its_report_still(nights):
    before = nights.night("2026-11-01", "before")
    time.sleep(0.01)
    first = nights.night("2026-11-02", "first")
    content = {**plans.read_plan(nights.root / first.plan), "last_published_run": before.run}
    plans.write_plan(nights.root / first.plan, content, work=nights.root / "work")
    upstreams = {"score": first.run}
    changes = nights.publish("changes", "first", run=first.run, since=before.run, upstreams=upstreams)
    nights.publish("changes", "since another", run=first.run, since="another", upstreams=upstreams)
    told = {"run": first.run, "model": first.model, "plan": first.plan}
    nights.publish("report", "old", **told, upstreams=upstreams)
    time.sleep(0.01)
    report = nights.publish("report", "new", **told, upstreams=upstreams)
    second = nights.night("2026-11-02", "second")
    whole = replace(first, changes=f"changes/{changes}", report=f"report/{report}")
    assert runs.before_latest(nights.root) == runs.find(nights.root, first.run[:12]) == whole
    assert runs.find(nights.root, second.run[:12]) == second
    pointers.pin(nights.root, whole)
    link = nights.root / "published" / "latest_report.html"
    assert link.readlink() == Path("..") / whole.report / "report.html"


def test_a_run_is_asked_for_by_its_date_or_where_that_has_another_by_its_fingerprint(nights):
    first, second = (nights.night("2026-11-01", name) for name in ("first", "second"))
    assert [runs.name_of(nights.root, run) for run in (first, second)] == [first.run[:12], "2026-11-01"]
    for run in (first, second):
        assert runs.find(nights.root, runs.name_of(nights.root, run)) == run


def test_from_a_pinned_run_it_goes_further_back(nights):
    found = []
    for day in (1, 2, 3):
        found.append(nights.night(f"2026-11-0{day}", f"night {day}"))
        time.sleep(0.01)
    for earlier in (found[1], found[0]):
        assert runs.before_latest(nights.root) == earlier
        pointers.pin(nights.root, earlier)
    with pytest.raises(ArtifactError, match="no other run stands before"):
        runs.before_latest(nights.root)


# --- pointers and invalidation


def test_latest_stays_pinned_whatever_is_published(nights):
    first, second = (nights.night(f"2026-11-0{day}", f"night {day}") for day in (1, 2))
    published = nights.root / "published"
    before = (published / "2026-11-01.json").read_bytes()
    pointers.pin(nights.root, first)
    third = nights.night("2026-11-03", "night 3")
    assert pointers.latest(nights.root) == pointers.pinned(nights.root) == first
    assert (published / "latest.json").read_bytes() == before == (published / "2026-11-01.json").read_bytes()
    assert (published / "latest").resolve() == (nights.root / first.folder).resolve()
    assert nights.dates() == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert pointers.release(nights.root) == third
    assert pointers.latest(nights.root) == third != second
    assert pointers.pinned(nights.root) is None


def test_a_run_that_retention_has_removed_since_it_was_found_is_not_pinned(nights):
    first, second = (nights.night(f"2026-11-0{day}", f"night {day}") for day in (1, 2))
    retention.clean(nights.root, keep_runs=1)
    with pytest.raises(ArtifactError, match="is gone or damaged; run the job of 2026-11-01 again"):
        pointers.pin(nights.root, first)
    assert (pointers.pinned(nights.root), pointers.latest(nights.root)) == (None, second)


def test_a_date_that_was_a_mistake_is_forgotten_with_its_plans_and_its_results_go(nights):
    first = nights.night("2026-11-01", "first")
    nights.night("2062-11-23", "mistake")
    assert pointers.latest(nights.root).date == "2062-11-23"
    second = nights.night("2026-11-02", "second")
    assert forgetting.forget(nights.root, "2062-11-23") == pointers.latest(nights.root) == second
    assert (nights.root / "published" / "latest").resolve() == (nights.root / second.folder).resolve()
    assert nights.dates() == ["2026-11-01", "2026-11-02"]
    assert {path.name[:10] for path in (nights.root / "plan").rglob("*.json")} == {"2026-11-01", "2026-11-02"}
    retention.clean(nights.root, keep_runs=30)
    assert nights.there("score") == {"first", "second"}
    assert pointers.removed(nights.root) == {}  # it may be run again, and a range may fill it
    assert forgetting.forget(nights.root, "2026-11-01") == second != first


def test_a_date_is_not_forgotten_where_nothing_would_be_the_latest(nights):
    first = nights.night("2026-11-01", "first")
    with pytest.raises(ArtifactError, match="2026-11-01: no other date is published"):
        forgetting.forget(nights.root, "2026-11-01")
    with pytest.raises(ArtifactError, match="2026-11-09: nothing is published for this date"):
        forgetting.forget(nights.root, "2026-11-09")
    nights.night("2026-11-02", "second")
    pointers.pin(nights.root, first)
    with pytest.raises(ArtifactError, match="is pinned to its run; first: python -m tasks rollback --release"):
        forgetting.forget(nights.root, "2026-11-01")
    assert nights.dates() == ["2026-11-01", "2026-11-02"]


def test_what_was_invalidated_is_remembered_and_a_damaged_memory_is_told(nights):
    invalidation.invalidate(nights.root, {"train": "f1"})
    invalidation.invalidate(nights.root, {"score": "f2"})
    assert {name: found["stage"] for name, found in invalidation.invalidated(nights.root).items()} == {
        "f1": "train",
        "f2": "score",
    }
    (nights.root / "invalidated.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"invalidated\.json: cannot be read .*; remove it"):
        invalidation.invalidated(nights.root)


def test_a_model_rests_on_what_it_was_made_from(nights):
    found = nights.night("2026-11-01", "first")
    upstreams = artifacts.manifest(nights.root / "export" / found.model)["upstreams"]
    assert invalidation.rests_on(nights.root, found.model, {found.model})
    assert invalidation.rests_on(nights.root, found.model, {upstreams["train"]})
    assert not invalidation.rests_on(nights.root, found.model, {found.run})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda root: (root / "published" / "2026-11-01.json").write_text("{"), "2026-11-01.json: is not a pointer"),
        (lambda root: (root / "published" / "latest.json").write_text("{"), "latest.json: is not a pointer"),
        (lambda root: (root / "published" / "removed.json").write_text("{"), "removed.json: cannot be read"),
        (lambda root: next((root / "plan").glob("*.json")).write_text("{"), "is not a plan"),
        (lambda root: next((root / "plan" / "copies").iterdir()).unlink(), "is not a plan"),
        (lambda root: files.remove(next((root / "score").iterdir())), "which is not there"),
        (
            lambda root: files.replace_link(root / "published" / "latest", root, work=root / "work"),
            "latest.json score/",
        ),
        (
            lambda root: (root / "published" / "2026-11-01.json").rename(root / "published" / "2026-11-02.json"),
            "2026-11-02.json: is the pointer of 2026-11-01",
        ),
    ],
)
def test_damaged_pointers_links_and_plans_are_named(nights, harm, told):
    nights.night("2026-11-01", "first")
    assert list(verification.damaged_pointers(nights.root)) == []
    harm(nights.root)
    assert told in "\n".join(verification.damaged_pointers(nights.root))
