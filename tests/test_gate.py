"""The gate: its figures by hand, and what a night does when its model is refused."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_job import Project, write_items
from small_model import TAXONOMY, make_items, make_model

from pipeline import gate, ledger, pointers
from pipeline.config import make_settings
from pipeline.config_nights import GateSettings
from pipeline.errors import FeatureError, ModelError, SettingsError
from pipeline.gate import Material, drop_error, drops, floors, general, is_accepted, majority
from pipeline.judging import Right, covered, predict, right, translated
from pipeline.taxonomy import Taxonomy

NAMES = ["genre", "path"]
# The first has fewer items than the gate wants by default; this one is always refused: nothing is called one thing.
REFUSING = ("--gate-min-items", "5", "--gate-max-top-share", "0.01")


def answers(*columns):
    """Return what is right of items whose labels are all known, a column a level and one for the path."""
    hits = np.array(columns, bool).T
    return Right(np.ones_like(hits), hits)


def evaluation(*, error=0.1, n=200, parity=1e-7, majority_classes=(("Horror",), ("Horror", "Zombies"))):
    levels = [{"majority_class": list(path)} for path in majority_classes]
    return {"levels": levels, "path": {"calibration_error": error, "n_items": n}, "parity": parity}


# --- the figures


def test_a_drop_within_the_margin_and_what_chance_explains_passes():
    # Of 100 items 90 are right with both; 6 with the old one only, 1 with the new one only: 96 -> 91.
    old = answers([1] * 90 + [1] * 6 + [0] + [0] * 3, [1] * 100)
    new = answers([1] * 90 + [0] * 6 + [1] + [0] * 3, [1] * 100)
    error = np.sqrt(7 - 25 / 100) / 100
    assert drop_error(new, old, 0) == pytest.approx(error)
    genre, path = drops(GateSettings(max_level_drop=0.02), new, old, NAMES)
    assert (genre.measure, genre.value, genre.n_items) == ("max_level_drop", 0.05, 100)
    assert genre.limit == pytest.approx(0.02 + 1.645 * error, abs=1e-6)  # 0.0627
    assert genre.passed and path.passed
    assert (path.measure, path.value, path.limit) == ("max_path_drop", 0, 0.02)


def test_a_larger_drop_is_refused_and_says_so_and_a_rise_is_not():
    old, new = answers([1] * 100, [0] * 100), answers([1] * 80 + [0] * 20, [1] * 100)
    genre, path = drops(GateSettings(), new, old, NAMES)
    assert not genre.passed
    assert genre.text.startswith("genre right 1.000 -> 0.800 (100 items), 0.914 would pass, [gate] max_level_drop")
    assert path.passed and path.value == -1


def test_the_same_answers_drop_by_nothing_and_the_margin_alone_is_the_limit():
    same = answers([1] * 50 + [0] * 50, [1] * 100)
    assert [(check.value, check.limit) for check in drops(GateSettings(), same, same, NAMES)] == [(0, 0.02), (0, 0.02)]


def test_the_first_model_must_be_right_more_often_than_the_most_frequent_class():
    always = answers([1] * 60 + [0] * 40, [1] * 30 + [0] * 70)
    better, equal = answers([1] * 61 + [0] * 39, [1] * 31 + [0] * 69), always
    assert [check.passed for check in floors(better, always, NAMES)] == [True, True]
    assert [check.passed for check in floors(equal, always, NAMES)] == [False, False]


def test_the_most_frequent_class_of_each_level_is_right_where_it_is_given():
    labels = [("Horror", "Zombies"), ("Drama", "Zombies"), ("Horror", "Ghosts"), ("Horror", None), (None, None)]
    items = pa.table({"genre": [genre for genre, _ in labels], "theme": [theme for _, theme in labels]})
    found = majority(evaluation(), items, TAXONOMY)
    assert found.known.tolist() == [[True] * 3, [True] * 3, [True] * 3, [True, False, False], [False] * 3]
    assert found.right.tolist() == [[True] * 3, [False] * 3, [True, False, False], [True, False, False], [False] * 3]


def test_a_model_is_right_where_its_best_path_has_the_given_labels():
    model, items = make_model(), pa.Table.from_batches([make_items(50)])
    scores = model.score_batch(items.to_batches()[0], clean=False)
    paths = [tuple(path) for path in scores.column("path").to_pylist()]
    own = right(model, items, TAXONOMY)
    given = list(zip(items["genre"].to_pylist(), items["theme"].to_pylist(), strict=True))
    genres = [path[:1] == (genre,) for path, (genre, _) in zip(paths, given, strict=True)]
    assert own.right[:, 0].tolist() == genres and 0 < sum(genres) < 50
    whole = [
        genre is not None and path == ((genre,) if theme == "-" else (genre, theme))
        for path, (genre, theme) in zip(paths, given, strict=True)
    ]
    assert own.right[:, 2].tolist() == whole
    assert own.known[:, 0].tolist() == [genre is not None for genre, _ in given]


def test_classes_of_an_older_taxonomy_count_by_their_full_path():
    today = Taxonomy.of(("genre", "theme"), [("Comedy", "War"), ("Drama", "War"), ("Horror", "Zombies")])
    drama_war = TAXONOMY.classes[1].index(("Drama", "War"))
    drama_zombies = TAXONOMY.classes[1].index(("Drama", "Zombies"))
    found = translated(TAXONOMY.paths[[drama_war, drama_zombies]], TAXONOMY, today)
    assert found.tolist() == [[1, 1], [1, -2]]  # Zombies are known today, but not below Drama


def test_a_model_that_cannot_be_asked_says_why():
    items = pa.Table.from_batches([make_items(4)])
    with pytest.raises(ModelError, match="it has the levels genre, theme"):
        right(make_model(), items, Taxonomy.of(("genre",), [("Horror",)]))
    reads_texts = make_model(
        settings=make_settings({"catalog": {"text": "plot"}, "features": {"blocks": "text_words"}})
    )
    with pytest.raises(FeatureError, match=r"text\.plot"):
        right(reads_texts, items, TAXONOMY)


def test_coverage_the_largest_class_and_calibration_are_judged():
    model, items = make_model(), pa.Table.from_batches([make_items(40)])
    known = set(model.transform.vocabulary.terms.to_pylist())
    expected = [bool(known & set(tags)) for tags in items["tags"].to_pylist()]
    assert covered(model, items).tolist() == expected and 0 < sum(expected) < 40
    coverage, top, calibration = general(GateSettings(), model, items, evaluation(error=0.3))
    assert (coverage.value, coverage.passed) == (pytest.approx(np.mean(expected)), True)
    counts = np.bincount(predict(model, items)[:, 0])
    assert (top.value, top.passed) == (pytest.approx(counts.max() / 40), True)
    assert (calibration.value, calibration.passed, calibration.n_items) == (0.3, False, 200)
    strict = GateSettings(min_coverage=1, max_top_share=0, max_calibration_error=0.3)
    assert [check.passed for check in general(strict, model, items, evaluation(error=0.3))] == [False, False, True]


def test_a_model_whose_export_computes_something_else_is_refused_of_however_few_items(tmp_path, monkeypatch):
    checks = [gate.agreement(evaluation(parity=parity), 3) for parity in (1e-5, 1.1e-5)]
    assert [check.passed for check in checks] == [True, False]
    for check, accepted in zip(checks, (True, False), strict=True):
        monkeypatch.setattr(gate, "figures", lambda *_, check=check: ("nothing", [check]))
        gate.judge(GateSettings(), Material(tmp_path, tmp_path, tmp_path, None), tmp_path, model="0123")
        verdict = json.loads((tmp_path / gate.VERDICT).read_text())
        (tmp_path / "evaluation.json").write_text(json.dumps({"parity": check.value}))
        with nullcontext() if accepted else pytest.raises(ModelError, match=r"the engine's 1.1e-05.*invalidate train"):
            gate.require_agreement(tmp_path)
        assert (verdict["accepted"], verdict["failed"]) == (accepted, [] if accepted else [check.text])


def test_a_model_is_let_through_by_the_beginning_of_its_fingerprint():
    assert is_accepted(GateSettings(accept="0123abcd"), "0123abcd" + "0" * 56)
    assert not is_accepted(GateSettings(accept="0123abcd"), "1123abcd" + "0" * 56)
    assert not is_accepted(GateSettings(), "0123abcd")
    with pytest.raises(SettingsError, match=r"\[gate\] accept = 0123"):
        make_settings({"gate": {"accept": "0123"}})


# --- the luigi command


def verdicts(project: Project) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(project.root.glob("gate/*/verdict.json"))]


def refused_model(project: Project) -> str:
    (model,) = (verdict["model"] for verdict in verdicts(project) if not verdict["accepted"])
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_first_model_of_few_items_is_accepted_and_its_figures_are_told(first_run):
    (verdict,) = verdicts(first_run[0])
    assert verdict["accepted"] and [check["measure"] for check in verdict["checks"]] == ["parity"]
    assert verdict["model"] == pointers.latest(first_run[0].root).model
    assert verdict["compared"] == "no model was accepted before"
    measures = [check["measure"] for check in verdict["too_few_items"]]
    assert measures == ["min_coverage", "max_top_share", "max_calibration_error"] + ["majority"] * 3


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_with_a_refused_model_the_last_accepted_one_scores_and_the_command_ends_with_30(project, workers):
    first = pointers.latest(project.root)
    write_items(project.folder / "items.csv", n=33)
    night = ("ScoreCatalog", "--date", "2026-11-24", *REFUSING, "--workers", workers)
    code, out, err = project.run(*night)
    assert code == 30
    model = refused_model(project)
    (refused,) = (verdict for verdict in verdicts(project) if not verdict["accepted"])
    assert any(text.startswith("items that are called") for text in refused["failed"])
    assert f"ScoreCatalog: model {model[:12]} is refused: {refused['failed'][-1]}" in err
    assert f"the last accepted model {first.model[:12]} has scored instead" in err
    assert f"--gate-accept {model[:12]}" in err
    assert f"of 2026-11-23, the last accepted one: {model[:12]} was refused" in out
    latest = pointers.latest(project.root)
    assert (latest.date, latest.model) == ("2026-11-24", first.model)
    assert latest.run != first.run
    assert json.loads((project.root / latest.folder / "summary.json").read_text())["n_items"] == 34
    assert (project.root / "export" / model / "model.h5").is_file()  # kept
    failed = ledger.entries(project.root)[-1]
    assert (failed.stage, failed.result) == ("score", "failed")
    assert failed.reason.startswith(f"model {model[:12]} is refused")
    done, judged = project.results(), contents(project.root / "gate")
    assert project.run(*night)[0] == 30  # the same night again
    assert project.stages_since(done) == []
    assert (contents(project.root / "gate"), pointers.latest(project.root)) == (judged, latest)


def test_the_next_night_is_compared_with_the_accepted_model_and_what_is_let_through_by_hand_scores(project):
    first = pointers.latest(project.root).model
    write_items(project.folder / "items.csv", n=33)
    project.run("ScoreCatalog", "--date", "2026-11-24", *REFUSING)
    model = refused_model(project)
    assert project.run("ScoreCatalog", "--date", "2026-11-25", *REFUSING)[0] == 30
    plan = json.loads((project.root / pointers.latest(project.root).plan).read_text())
    assert plan["last_accepted_model"] == first
    before = project.results()
    project.score(*REFUSING, "--gate-accept", model[:12], date="2026-11-25")
    assert project.stages_since(before) == ["score"]
    assert pointers.latest(project.root).model == model
    assert [verdict["model"] for verdict in verdicts(project) if verdict["accepted_by_hand"]] == [model]
    project.score(*REFUSING, date="2026-11-26")  # it is the last accepted one from here on
    assert pointers.latest(project.root).model == model


def test_without_a_model_to_fall_back_on_a_refusal_publishes_nothing(project):
    code, _, err = project.run("ScoreCatalog", "--storage-root", "elsewhere", *REFUSING)
    assert code == 30
    assert "(no model was accepted before); nothing is published" in err
    assert not (project.folder / "elsewhere" / "published").exists()
    assert list((project.folder / "elsewhere" / "export").iterdir())


@pytest.mark.slow
def test_without_the_gate_every_model_scores(project):
    write_items(project.folder / "items.csv", n=33)
    project.score(*REFUSING, "--gate-enabled", "false", date="2026-11-24")
    assert len(verdicts(project)) == 1  # that of the first night
