"""From the shell: what each tag contributed, and a file of items scored without Luigi."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_model import features, make_model

from pipeline import artifacts, digests, formats
from pipeline.__main__ import main
from pipeline.config_catalog import CatalogSettings
from pipeline.explain import contributions
from pipeline.tag_lists import TagLists

MODEL = make_model()
ITEMS = (
    "item_id,title,tags,genre,theme\n"
    "7,Night,Zombies;FARMHOUSE,Horror,Zombies\n"
    "9,Field,war; trenches ;war,,\n"
    "9,Again,war,,\n"
    "8,Nothing,,,\n"
    ",No id,satire,,\n"
)
LENIENT = ("--set", "clean.max_reject_share=0.5")


@pytest.fixture
def model_file(tmp_path):
    catalog = formats.catalog_facts(CatalogSettings(levels=("genre", "theme")))
    replace(MODEL, catalog=catalog).save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


def score(model_file, items, *options):
    return main(["score", str(items), "--model", str(model_file), "--out", str(items.parent / "out"), *options])


def write_items(folder, text=ITEMS, name="items.csv"):
    path = folder / name
    path.write_text(text)
    return path


# --- what each tag contributed


def test_a_contribution_is_the_change_when_the_tag_is_left_out():
    tags = ["zombies", "farmhouse", "War"]
    with_all = MODEL.predict([tags], n_best=6)[0]
    for place, found in enumerate(contributions(MODEL, tags)):
        without = MODEL.predict([tags[:place] + tags[place + 1 :]], n_best=6)[0]
        probability = dict(zip(without.best_paths, without.best_path_probabilities, strict=True))[with_all.path]
        assert found.tag == tags[place]
        assert found.change == pytest.approx(with_all.path_probability - probability, abs=1e-6)


def test_without_tags_nothing_contributes():
    assert contributions(MODEL, []) == []


def test_the_shell_explains_on_request(model_file, capsys):
    assert main(["predict", "zombies", "Farmhouse", "--model", str(model_file), "--best", "1", "--explain"]) == 0
    best, blank, title, first, second = capsys.readouterr().out.splitlines()
    assert blank == ""
    assert title == f"What each tag adds to {best.split('%  ')[1]} (the change when it is left out):"
    changes = contributions(MODEL, ["zombies", "Farmhouse"])
    assert first.endswith(f"{100 * changes[0].change:+6.1f}   zombies")
    assert second.endswith(f"{100 * changes[1].change:+6.1f}   Farmhouse")


# --- a file


def test_a_file_is_scored_into_a_new_directory(model_file, tmp_path, capsys):
    assert score(model_file, write_items(tmp_path), *LENIENT) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out.splitlines() == [
        "3 items scored, 1 of them without tags, 2 rejected",
        str(out / "scores.parquet"),
        str(out / "scores.h5"),
    ]
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    assert [row["item_id"] for row in rows] == [7, 9, 8]
    assert [row["title"] for row in rows] == ["Night", "Field", "Nothing"]
    assert rows[0]["given_path"] == ["Horror", "Zombies"]
    for row, tags in zip(rows, (["zombies", "farmhouse"], ["war", "war", "trenches"], []), strict=True):
        prediction = MODEL.predict([tags])[0]
        assert tuple(row["path"]) == prediction.path
        assert row["path_probability"] == pytest.approx(prediction.path_probability, rel=1e-5)
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert sorted(reject["reason"] for reject in rejects) == ["duplicate item_id", "no item_id"]
    with h5py.File(out / "scores.h5") as file:
        assert file["item_id"][:].tolist() == [7, 9, 8]


def test_what_is_published_has_a_manifest_and_nothing_else_is_left(model_file, tmp_path):
    score(model_file, write_items(tmp_path), *LENIENT)
    assert artifacts.verify(tmp_path / "out")
    manifest = artifacts.manifest(tmp_path / "out")
    assert manifest["model"] == digests.sha256_of(model_file)
    assert manifest["inputs"] == {str(tmp_path / "items.csv"): digests.sha256_of(tmp_path / "items.csv")}
    assert {path.name for path in tmp_path.iterdir()} == {"items.csv", "model.h5", "out"}


def test_every_kind_of_file_gives_the_same_scores(model_file, tmp_path):
    rows = [{"item_id": 7, "title": "Night", "tags": ["zombies", "farmhouse"]}, {"item_id": 9, "title": "", "tags": []}]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lines = write_items(tmp_path / "a", "".join(json.dumps(row) + "\n" for row in rows), "items.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b" / "items.parquet")
    assert score(model_file, lines) == score(model_file, tmp_path / "b" / "items.parquet") == 0
    first, second = (pq.read_table(tmp_path / name / "out" / "scores.parquet").to_pydict() for name in "ab")
    assert first == second


def test_columns_of_another_name_and_files_of_tags_and_labels(model_file, tmp_path):
    items = write_items(tmp_path, "ID,title\na,Night\nb,Field\n")
    tags = write_items(tmp_path, "ID,tags\na,zombies\nb,war\na,Farmhouse\n", "tags.csv")
    labels = write_items(tmp_path, "ID,genre,theme\nb,Drama,War\n", "labels.csv")
    assert score(model_file, items, "--tags", str(tags), "--labels", str(labels), "--set", "catalog.item_id=ID") == 0
    rows = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [(row["item_id"], row["n_tags"], row["given_path"]) for row in rows] == [
        ("a", 2, None),
        ("b", 1, ["Drama", "War"]),
    ]


def test_tags_are_cleaned_by_the_rules_in_the_model(tmp_path):
    lists = TagLists(aliases={"undead": "zombies"}, stops=frozenset({"war"}))
    catalog = {**formats.catalog_facts(CatalogSettings(levels=("genre", "theme"))), "tag_separators": "|"}
    model_file = tmp_path / "model.h5"
    replace(MODEL, catalog=catalog, tag_lists=lists).save(model_file)
    assert score(model_file, write_items(tmp_path, "item_id,title,tags\n1,x,Undead|WAR\n")) == 0
    (row,) = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert (row["n_tags"], row["n_unseen_tags"]) == (1, 0)


def test_a_model_that_knows_no_names_of_columns_is_asked_what_it_reads(tmp_path):
    settings = features(text=("plot",), blocks=("tags", "text_words"))
    make_model(settings=settings).save(tmp_path / "model.h5")
    rows = "item_id,title,tags,plot,genre\n1,x,war,the war and the trenches,Drama\n2,y,war,,\n"
    assert score(tmp_path / "model.h5", write_items(tmp_path, rows)) == 0
    one, other = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert (one["given_path"], other["given_path"]) == (["Drama"], None)
    assert one["path_probability"] != other["path_probability"]


def test_a_model_names_no_files(tmp_path):
    catalog = {"items": "/no/items.csv", "labels": "/no/labels.csv", "taxonomy": "/no/taxonomy.csv", "tags": "/no.csv"}
    replace(MODEL, catalog=catalog).save(tmp_path / "model.h5")
    assert score(tmp_path / "model.h5", write_items(tmp_path), *LENIENT) == 0


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (ITEMS, (), "CatalogError: 2 of 5 rows"),
        (ITEMS, ("--set", "catalog.titel=x"), "no such setting; did you mean 'title'?"),
        (ITEMS, ("--set", "network.hidden=4"), "[network] hidden: has no effect on scoring"),
        (ITEMS, ("--set", "title"), "--set title: is not of the form SECTION.NAME=VALUE"),
        (ITEMS, ("--tags", "/no/tags.csv"), "/no/tags.csv: there is no such file"),
        ("id,title,tags\n1,x,war\n", (), "there is no column 'item_id'"),
        ("", (), "items.csv"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing_behind(model_file, tmp_path, capsys, text, options, message):
    assert score(model_file, write_items(tmp_path, text), *options) == 1
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"items.csv", "model.h5"}


def test_a_directory_that_is_there_is_not_touched(model_file, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert score(model_file, write_items(tmp_path), *LENIENT) == 1
    assert "out: exists; name a directory that does not" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_absent_file_and_an_absent_model_are_told(model_file, tmp_path, capsys):
    assert score(model_file, tmp_path / "absent.csv") == 1
    assert "absent.csv: there is no such file" in capsys.readouterr().err
    assert score(tmp_path / "absent.h5", write_items(tmp_path)) == 1
    assert "absent.h5: there is no such file" in capsys.readouterr().err


def test_the_bytes_are_the_same_twice(model_file, tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        score(model_file, write_items(tmp_path / name), *LENIENT)
        out = tmp_path / name / "out"
        contents.append({path.name: path.read_bytes() for path in out.rglob("*.h5") if path.is_file()})
    assert contents[0] == contents[1]


def test_without_duckdb_a_file_is_not_read_and_the_shell_says_so(model_file, tmp_path):
    code = """if True:
        import sys
        from importlib import util
        find_spec = util.find_spec
        util.find_spec = lambda name, *rest: None if name == "duckdb" else find_spec(name, *rest)
        from pipeline.__main__ import main
        sys.exit(main(sys.argv[1:]))"""
    command = ["score", str(write_items(tmp_path)), "--model", str(model_file), "--out", str(tmp_path / "out")]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install duckdb" in done.stderr


def test_the_shell_says_how_many_processes_score(model_file, tmp_path, capsys):
    assert score(model_file, write_items(tmp_path), "--workers", "many") == 1
    assert "[scoring] workers = many" in capsys.readouterr().err
    assert score(model_file, write_items(tmp_path), *LENIENT, "--workers", "2") == 0
