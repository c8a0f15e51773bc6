"""The report: its figures by hand, what it does with names that try to be code, and how the job makes it."""

import csv
import io
import json
import re
import shutil
from itertools import pairwise

import luigi
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_job import FORMULA, IMAGE, NEXT_DATE, SCRIPT
from small_job import DATE, Project
from small_model import TAXONOMY, make_model

from pipeline import artifacts, pointers, runs
from pipeline.config import Settings
from pipeline.evaluation import Outcome
from pipeline.judging import Right
from pipeline.report import PAGE, REVIEW, charts, learning, make_report, tags
from pipeline.report.contents import contents
from pipeline.report.headline import change_of
from pipeline.report.held_out import HeldOut, ask
from pipeline.report.page import as_json, render
from pipeline.report.review import review
from pipeline.report.scored import Item, Scored, count, suspicion, tops
from pipeline.report.sources import Run
from tasks.__main__ import main as look_after
from tasks.report import publish_report

HORROR, WAR = ["Horror", "Zombies"], ["Drama", "War"]
REPORT = Settings().report


# --- scores, counted


def published(folder, rows, *, levels=("genre", "theme")):
    """Publish scores: id, best path, its probability, the levels' probabilities, given path, known tags."""
    columns = {
        "item_id": [row[0] for row in rows],
        "title": pa.array([f"film {row[0]}" for row in rows]),
        **{f"{level}_probability": [row[3][k] for row in rows] for k, level in enumerate(levels)},
        "path_probability": pa.array([row[2] for row in rows], pa.float32()),
        "best_paths": pa.array([[row[1]] for row in rows], pa.list_(pa.list_(pa.string()))),
        "given_path": pa.array([row[4] for row in rows], pa.list_(pa.string())),
        "n_tags": [3 if row[5] else 0 for row in rows],
        "no_known_tags": [not row[5] for row in rows],
    }

    def write(at):
        (at / "scores.parquet").mkdir()
        pq.write_table(pa.table(columns), at / "scores.parquet" / "part-00000.parquet")

    artifacts.publish(folder, write, work=folder.parent / "work" / folder.name, facts={})
    return folder


ROWS = [
    (1, HORROR, 0.97, (0.99, 0.97), HORROR, True),
    (2, HORROR, 0.60, (0.98, 0.60), WAR, True),  # the model is sure that it is no drama
    (3, WAR, 0.30, (0.90, 0.30), ["Drama", "Zombies"], True),  # unsure where the two part
    (4, WAR, 0.20, (0.40, 0.20), None, True),
    (5, ["Comedy"], 0.10, (0.10, 0.10), None, False),  # without tags: its doubt needs no list
    (6, HORROR, 0.80, (0.95, 0.80), ["Horror"], True),  # known to the genre only, and right there
    (7, ["Comedy"], 0.90, (0.90, 0.90), HORROR, True),
]


def counted(tmp_path, **most) -> Scored:
    return count(published(tmp_path / "score", ROWS), None, TAXONOMY.levels, **{"n_unsure": 2, "n_suspects": 9, **most})


def test_items_are_counted_by_their_path_and_by_how_sure_the_model_is(tmp_path):
    found = counted(tmp_path)
    assert (found.n_items, found.n_without_tags, found.n_no_known_tags, found.n_labelled) == (7, 1, 1, 5)
    assert found.predicted == {("Horror", "Zombies"): 3, ("Drama", "War"): 2, ("Comedy",): 2}
    assert found.given == {
        ("Horror", "Zombies"): 2,
        ("Drama", "War"): 1,
        ("Drama", "Zombies"): 1,
        ("Horror",): 1,
    }
    without, labelled = found.confidence
    assert {place: n for place, n in enumerate(without) if n} == {2: 1, 4: 1}  # .10 and .20 begin bins of a twentieth
    assert (sum(without), sum(labelled), labelled[19]) == (2, 5, 1)
    assert tops(tmp_path / "score") == {"Horror": 3, "Drama": 2, "Comedy": 2}


def test_the_least_sure_come_first_but_for_those_of_which_nothing_is_known(tmp_path):
    assert [(item.item_id, item.given) for item in counted(tmp_path).unsure] == [("4", ""), ("3", "Drama > Zombies")]


def test_a_label_is_suspected_by_the_level_where_the_model_parts_from_it(tmp_path):
    found = counted(tmp_path).suspects
    assert [(item.item_id, round(item.probability, 2)) for item in found] == [("2", 0.98), ("7", 0.9)]
    assert (found[0].given, found[0].predicted) == ("Drama > War", "Horror > Zombies")


def test_a_level_may_be_called_anything(tmp_path):
    assert '"a ""b""_probability"' in suspicion(['a "b"'])


# --- items held out


def outcome_of(labels, classes, confidence):
    labels, classes = np.array(labels, np.int32), np.array(classes, np.int32)
    n = len(labels)
    nothing = np.zeros((n, 2))
    sure = np.array(confidence, float)
    return Outcome(
        labels, classes, np.stack([sure, sure], 1), nothing, sure, nothing[:, 0], nothing, nothing[:, 0], classes
    )


@pytest.fixture
def held_out():
    """Five items; classes of TAXONOMY: genres Comedy 0, Drama 1, Horror 2; themes 0 to 5 in the order of paths."""
    zombies, war, ghosts = (
        TAXONOMY.classes[1].index(path) for path in (("Horror", "Zombies"), ("Drama", "War"), ("Horror", "Ghosts"))
    )
    labels = [[2, zombies], [2, zombies], [1, war], [2, ghosts], [1, -1]]
    classes = [[2, zombies], [1, war], [1, war], [2, zombies], [0, 0]]
    found = outcome_of(labels, classes, [0.9, 0.8, 0.7, 0.6, 0.5])
    names = [["Horror", "Zombies"], ["Horror", "Zombies"], ["Drama", "War"], ["Horror", "Ghosts"], ["Drama", None]]
    items = pa.table(
        {
            "item_id": range(5),
            "title": [f"film {k}" for k in range(5)],
            "tags": [["a", "b"]] * 5,
            "genre": [name[0] for name in names],
            "theme": pa.array([name[1] for name in names]),
            "split": ["validation"] * 3 + ["test"] * 2,
        }
    )
    return HeldOut(items, found, found, TAXONOMY)


def test_accuracy_is_counted_for_every_class_of_every_level(held_out):
    found = held_out.accuracies()
    assert (found["Horror",], found["Drama",], found["Comedy",]) == ((3, 2), (2, 1), (0, 0))
    assert found["Horror", "Zombies"] == (2, 1)
    assert found["Drama", "War"] == (1, 1)


def test_confusions_of_the_top_level_are_rows_of_given_labels(held_out):
    assert held_out.confusion().tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 2]]


def test_pairs_stand_below_the_given_genre_where_the_paths_part_with_the_surest_examples(held_out):
    found = held_out.pairs()
    assert list(found) == ["Drama", "Horror"]
    assert [(pair.given, pair.predicted, pair.n_items) for pair in found["Drama"]] == [("Drama", "Comedy", 1)]
    horror = {(pair.given, pair.predicted): pair for pair in found["Horror"]}
    assert set(horror) == {("Horror", "Drama"), ("Horror > Ghosts", "Horror > Zombies")}
    (example,) = horror["Horror", "Drama"].examples
    assert (example.title, example.tags, example.given, example.predicted, example.probability, example.part) == (
        "film 1",
        "a, b",
        "Horror > Zombies",
        "Drama > War",
        0.8,
        "validation",
    )


def test_the_curve_of_the_path_is_of_items_whose_whole_path_is_known(held_out):
    before, _ = held_out.curves(None)
    assert sum(before.n_items) == 4
    assert sum(n * share for n, share in zip(before.n_items, before.accuracy, strict=True)) == pytest.approx(2)


def test_no_held_out_items_are_no_ground_to_judge_on(tmp_path):
    table = pa.table({"item_id": [1], "genre": ["Horror"], "theme": ["Zombies"], "split": ["train"], "tags": [["a"]]})
    pq.write_table(table, tmp_path / "items.parquet")
    assert ask(make_model(), tmp_path) is None
    assert ask(make_model(), None) is None


def test_a_change_is_told_with_what_chance_explains():
    known = np.ones((100, 1), bool)
    now, before = (Right(known, np.arange(100)[:, None] < n) for n in (90, 80))
    change, chance = change_of((now, before), -1)
    assert change == pytest.approx(0.1)
    assert chance == pytest.approx(1.96 * np.sqrt(10 - 100 / 100) / 100)
    assert change_of(None, 0) is None


# --- tags, labels to review, charts


def test_tags_are_told_by_the_label_that_they_speak_for():
    model = make_model()
    found = tags.telling(model)
    named = [each.tag for group in found.values() for each in group]
    assert sorted(named) == sorted(set(named)) and set(named) <= set(model.transform.vocabulary.terms.to_pylist())
    prior = model.predict_proba([[]])[0][0]
    for place, (label, group) in enumerate(found.items()):
        assert model.taxonomy.classes[0][place] == (label,)
        for each in group:
            alone = model.predict_proba([[each.tag]])[0][0]
            assert each.probability == pytest.approx(alone[place], abs=1e-6)
            assert alone[place] > prior[place]


def test_unseen_tags_are_those_without_an_id(tmp_path):
    def write(folder):
        rows = {"tag": ["zombies", "unheard of", "war"], "n_items": [5, 3, 2]}
        pq.write_table(pa.table(rows), folder / "tags.parquet")

    artifacts.publish(tmp_path / "clean", write, work=tmp_path / "work" / "clean", facts={})
    found = tags.count(make_model(), tmp_path / "clean", most=2)
    assert (found.n_distinct, found.n_applications, found.n_unseen, found.unseen_share) == (3, 10, 1, 0.3)
    assert (found.frequent, found.unseen) == ((("zombies", 5), ("unheard of", 3)), (("unheard of", 3),))


def test_no_cell_of_the_labels_to_review_is_a_formula():
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", 'fine, "quoted"\nand long']  # noqa: RUF001
    items = [Item(text, text, text, text, text, 0.5, "test") for text in hostile]
    rows = list(csv.DictReader(io.StringIO(review(items).decode("utf-8-sig"), newline="")))
    for row, text in zip(rows, hostile, strict=True):
        assert row["title"] == (text if text == hostile[-1] else f"'{text}")
        assert row["tags"] == row["given_path"] == row["title"]


def test_a_tree_has_each_label_once_and_parents_hold_their_children():
    counts = {("a", "x"): 3, ("a",): 1, ("b", "x"): 2}
    (trace,) = charts.treemap(counts, {("a",): (4, 1)}, root="all")["data"]
    nodes = dict(zip(trace["ids"], zip(trace["labels"], trace["parents"], trace["values"], strict=True), strict=True))
    assert len(nodes) == 5
    assert nodes["0"] == ("all", "", 6)
    for key, (_, _, value) in nodes.items():
        assert sum(other for _, parent, other in nodes.values() if parent == key) <= value
    assert trace["text"][trace["labels"].index("a")] == "25% right of 4"


def test_a_large_tree_keeps_its_largest_labels(monkeypatch):
    monkeypatch.setattr(charts, "MAX_NODES", 3)
    (trace,) = charts.treemap({("a", "x"): 9, ("b", "y"): 1, ("c", "z"): 5}, {}, root="all")["data"]
    assert trace["labels"] == ["all", "a", "x", "c"]


def test_steps_of_accuracy_rise_in_lightness_so_that_any_eye_can_order_them():
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (bytes.fromhex(step[1:]) for step in charts.STEPS)]
    assert all(b - a > 25 for a, b in pairwise(light))


def test_nothing_in_json_ends_the_element_that_it_stands_in():
    text = as_json({"title": "</script><!--", "n": 1})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"title": "</script><!--", "n": 1}


# --- how the networks have learned


def trained(root, name, *, seed, **facts):
    """Publish what a member leaves of its training: two epochs, the first the better one."""

    def write(folder):
        rows = ["epoch,loss,validation_loss,validation_genre_accuracy,training_genre_accuracy,validation_path_accuracy"]
        rows += ["1,3,2.5,0.5,0.75,0.25", "2,2,,0.25,1,0.5"]
        (folder / "history.csv").write_text("\n".join(rows))
        told = {"best_epoch": 1, "n_epochs": 2, "seconds": 4.5, "seed": seed, **facts}
        (folder / "training.json").write_text(json.dumps(told))

    artifacts.publish(root / name, write, work=root / "work" / name, facts={})
    return root / name


def run_of(*training):
    """Return a run of which only the training is known."""
    names = dict.fromkeys(Run.__dataclass_fields__)
    return Run(**{**names, "training": training, "plan": {}})


def test_curves_have_the_chosen_epoch_and_gaps_where_nothing_was_measured(tmp_path):
    run = run_of(trained(tmp_path, "one", seed=1))
    loss, accuracy = learning.curves(run, ("genre",))
    assert {line["name"]: line["y"] for line in loss.figure["data"]} == {"all levels, validation": [2.5, None]}
    assert {line["name"]: line["y"] for line in accuracy.figure["data"]} == {
        "genre, training": [0.75, 1],
        "genre, validation": [0.5, 0.25],
        "path, validation": [0.25, 0.5],
    }
    assert accuracy.figure["layout"]["shapes"][0]["x0"] == 1
    assert "the weights are those of epoch 1 of 2" in accuracy.says
    assert learning.members(run) is None and learning.experts(run) == []


def test_members_and_experts_are_told_where_there_are_any(tmp_path):
    shares = {"expert_shares": [0.75, 0.25]}
    run = run_of(trained(tmp_path, "one", seed=1, **shares), trained(tmp_path, "two", seed=2, **shares))
    assert learning.members(run).rows[1] == ("2", 2, 1, 2.5, 0.25, 4.5)
    first, second = learning.experts(run)
    assert (first.title, second.title) == ("Experts of member 1", "Experts of member 2")
    assert first.figure["data"][0]["x"] == [0.75, 0.25]


# --- the page of a real job


@pytest.fixture(scope="module")
def page(two_nights) -> str:
    return (two_nights.root / "published" / "latest_report.html").read_text("utf-8")


def test_the_job_ends_by_making_a_report_that_its_pointer_names(two_nights, page):
    pointer = pointers.latest(two_nights.root)
    folder = artifacts.verify(two_nights.root / pointer.report)
    assert sorted(path.name for path in folder.iterdir()) == [REVIEW, "manifest.json", PAGE]
    assert artifacts.manifest(folder)["upstreams"] == {"score": pointer.run}
    assert not (two_nights.root / pointer.folder / PAGE).exists()
    assert len(page) < 8_000_000
    assert f"<title>Tagladder {NEXT_DATE}: " in page


def test_names_from_the_data_are_nowhere_code(page):
    for hostile in (SCRIPT, IMAGE, "</script><i>", "<b>bold"):
        assert hostile not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == page.count("</script>")


def test_the_page_asks_for_nothing_from_outside(page):
    # Plotly's own text names addresses that it opens only where a map or an upload is asked for.
    own = page[: page.index("<script>/**")]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", own)
    assert "default-src 'none'" in own


def test_the_page_tells_of_the_night(two_nights, page):
    evaluation = json.loads(
        (two_nights.root / "published" / "latest_model.h5").resolve().with_name("evaluation.json").read_text()
    )
    for level in evaluation["levels"]:
        assert f"{level['accuracy']:.1%}" in page
    found = contents(Run.of(two_nights.root, pointers.latest(two_nights.root)), REPORT)
    assert {card.name for card in found.cards} == {"whole path", "genre", "theme", "scored", "rejected", "changed"}
    assert [chart.name for chart in found.learning] == ["learning-loss", "learning-accuracy"]
    assert {name["name"] for name in found.learning[0].figure["data"]} >= {"genre, training", "theme, validation"}
    assert found.compared.startswith("Changes compare with model ")
    assert found.moved and found.changes and found.pairs and found.suspects
    assert "no item_id" in page and "unseen in training" in page.lower()
    assert [title for title, _ in found.details][:2] == ["Fingerprints", "Pointer"]
    (frequent, unseen) = found.tags
    assert ("not met before", 105) not in unseen.rows  # the second night has learned it
    assert frequent.rows[0] == ("=hyperlink(1", 126)


def test_labels_that_were_moved_are_suspected(two_nights):
    folder = two_nights.root / pointers.latest(two_nights.root).report
    with (folder / REVIEW).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["given_path"] != row["predicted_path"] and float(row["probability"]) > 0.5 for row in rows)
    assert not any(cell.startswith(FORMULA) for row in rows for cell in row.values())


def test_what_retention_has_removed_is_left_out_of_a_report_that_is_made_later(two_nights, tmp_path):
    root = tmp_path / "artifacts"
    shutil.copytree(two_nights.root, root, symlinks=True)
    pointer = runs.find(root, NEXT_DATE)
    for stage in ("train", "gate", "drift", "clean", "plan"):
        shutil.rmtree(root / stage)
    shutil.rmtree(root / runs.find(root, DATE).folder)
    found = contents(Run.of(root, pointer), REPORT)
    assert (found.learning, found.tags, found.confusion, found.accuracy is None) == ([], [], None, False)
    assert found.verdict.title == "Not judged"
    assert "there are no learning curves" in render(found)


def test_a_report_of_any_run_is_made_by_a_task_of_its_own(two_nights, tmp_path):
    shutil.copytree(two_nights.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    before = runs.find(project.root, DATE)
    shutil.rmtree(project.root / "report")
    code, out, err = project.run("Report", "--of", DATE, "--report-examples", "3")
    assert code == 0, err
    after = runs.find(project.root, DATE)
    assert after.report not in (None, before.report)
    assert f"artifacts/{after.report}/report.html" in out
    assert (after.run, after.changes) == (before.run, before.changes)
    assert project.run("Report", "--of", DATE, "--report-examples", "3")[1] == ""  # nothing to do
    code, _, err = project.run("Report", "--of", "2026-01-01")
    assert code == 40 and "2026-01-01: nothing is published for this date" in err


def test_a_report_that_was_damaged_is_found_and_made_anew_by_the_next_run(two_nights, tmp_path, capsys):
    shutil.copytree(two_nights.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    folder = project.root / pointers.latest(project.root).report
    (folder / PAGE).write_text((folder / PAGE).read_text("utf-8").replace("T", "t", 1), "utf-8")
    at = ["--storage-root", str(project.root)]
    assert look_after(["verify", *at]) == 1
    assert f"{folder / PAGE}: has changed since it was published" in capsys.readouterr().out
    project.score(date=NEXT_DATE)
    assert look_after(["verify", *at]) == 0
    assert look_after(["where", "--report", *at]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / PAGE)


def test_the_scheduler_is_told_where_the_page_lies(two_nights):
    task, pointer, links = luigi.Task(), pointers.latest(two_nights.root), []
    task.set_tracking_url = links.append  # as Luigi's worker does
    assert publish_report(task, two_nights.root, pointer, REPORT) == pointer.report
    assert links == [(two_nights.root / pointer.report / PAGE).as_uri()]


def test_the_same_night_with_other_settings_of_the_report_is_the_same_run(two_nights, tmp_path):
    shutil.copytree(two_nights.folder, tmp_path / "project", symlinks=True)
    assert "nothing to do" in Project(tmp_path / "project").score("--report-examples", "7", date=NEXT_DATE)


def test_scores_are_published_where_the_report_cannot_be_made(project):
    (project.root / "report").write_text("in the way")
    code, _, err = project.run("ScoreCatalog", "--date", NEXT_DATE, "--report-enabled", "true")
    assert code == 0
    assert "report: not made: " in err and f"luigi --module tasks Report --of {NEXT_DATE} tries again" in err
    latest = pointers.latest(project.root)
    assert (latest.date, latest.report) == (NEXT_DATE, None)
    assert look_after(["where", "--report", "--storage-root", str(project.root)]) == 1


def test_a_refused_model_is_told_in_the_report_of_the_one_that_scored(project):
    flags = (
        "--gate-min-items",
        "5",
        "--gate-max-top-share",
        "0.01",
        "--training-seed",
        "9",
        "--report-enabled",
        "true",
    )
    assert project.run("ScoreCatalog", "--date", NEXT_DATE, *flags)[0] == 30
    pointer = pointers.latest(project.root)
    found = contents(Run.of(project.root, pointer), REPORT)
    assert (found.verdict.title, found.verdict.state) == ("Refused", "bad")
    assert f"The model accepted before, {pointer.model[:12]}, has scored instead." in found.verdict.says
    assert found.compared == "The same model has scored as before."


def test_an_empty_catalog_has_a_report(project, tmp_path):
    (project.folder / "none.csv").write_text("item_id,title,tags,genre,theme,split\n,no id,a,,,train\n")
    flags = ("--scoring-items", "none.csv", "--report-enabled", "true", "--clean-max-reject-share", "1")
    code, _, err = project.run("ScoreCatalog", "--date", NEXT_DATE, *flags)
    assert code == 0, err
    make_report(project.root, pointers.latest(project.root), tmp_path, REPORT)
    assert "0.0%" in (tmp_path / PAGE).read_text("utf-8")
