"""Raw items in Parquet: cleaned by the process that scores them, and nobody can tell the difference."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import make_model

from pipeline import formats
from pipeline.config_catalog import CatalogSettings
from pipeline.digests import sha256_of
from pipeline.errors import CatalogError
from pipeline.model import load_rules
from pipeline.progress import SILENT
from pipeline.raw_plan import plan
from pipeline.score_catalog import Effort
from pipeline.score_file import score_file, settings_for
from pipeline.score_raw import score_raw

TAGS = ["Zombies", "FARMHOUSE ", "ghost", "war", "x" * 120, "", "never heard of", "laughs"]


def make_rows(n, *, without_id=()):
    """Return raw items: some labelled, some without tags, some tags too long, and those of the numbers without id."""
    return [
        {
            "item_id": None if k in without_id else 1000 + k,
            "title": None if k % 5 == 4 else f"Film {k}",
            "tags": None if k % 11 == 3 else [TAGS[(k + j * j) % len(TAGS)] for j in range(k % 4)],
            "genre": "Horror" if k % 3 == 0 else None,
            "theme": "Zombies" if k % 6 == 0 else None,
        }
        for k in range(n)
    ]


SCHEMA = pa.schema(
    [
        ("item_id", pa.int64()),
        ("title", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("genre", pa.string()),
        ("theme", pa.string()),
    ]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    catalog = formats.catalog_facts(CatalogSettings(levels=("genre", "theme")))
    replace(make_model(), catalog=catalog).save(path)
    return path


def write_parquet(folder, rows, *, row_group_size=7, schema=SCHEMA):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "items.parquet", row_group_size=row_group_size)
    return folder / "items.parquet"


def plan_of(model, items, folder, **changes):
    given_settings = {"clean": {"max_reject_share": 0.9}, **changes}
    chosen, _ = load_rules(model, settings_for(str(items), model, given_settings))
    expected = {str(items): sha256_of(items)}
    return chosen, expected, plan(chosen, folder, expected)


def score_rows(model, items, folder, *, workers=1, shard_items=16, batch_size=8):
    (folder / "build").mkdir(parents=True)
    scoring = {"workers": workers, "batch_size": batch_size}
    chosen, expected, rows = plan_of(model, items, folder, scoring=scoring)
    effort = Effort(shard_items=shard_items, few_items=0)
    options = {"expected": expected, "run": "r", "progress": SILENT, "effort": effort}
    score_raw(chosen, model, rows, folder / "build", **options)
    return {path.name: path.read_bytes() for path in sorted((folder / "build").rglob("*")) if path.is_file()}


def test_the_scores_and_the_rejects_are_those_of_the_long_way(model, tmp_path):
    rows = make_rows(60, without_id=(5, 17, 40))
    items = write_parquet(tmp_path / "a", rows)
    assert plan_of(model, items, tmp_path)[2] is not None
    lines = tmp_path / "items.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lenient = {"clean": {"max_reject_share": 0.9}}
    short = score_file(str(items), model=model, out=tmp_path / "short", settings=lenient)
    long = score_file(str(lines), model=model, out=tmp_path / "long", settings=lenient)
    assert short == long
    assert (short["n_items"], short["n_rejected"]) == (57, 3)
    one, other = (pq.read_table(tmp_path / way / "scores.parquet").to_pydict() for way in ("short", "long"))
    assert one.keys() == other.keys()
    for name, values in one.items():
        near = name.endswith("probability")
        assert values == (pytest.approx(other[name], abs=1e-6) if near else other[name]), name
    kept = ["scope", "line", "item_id", "reason"]
    first, second = (pq.read_table(tmp_path / way / "rejects.parquet", columns=kept) for way in ("short", "long"))
    assert first.to_pylist() == second.to_pylist()
    assert {"item", "tag"} == set(first["scope"].to_pylist())


def test_without_rejected_items_even_the_bytes_are_those_of_the_long_way(model, tmp_path):
    items = write_parquet(tmp_path, make_rows(40))
    twice = make_rows(40)
    again = write_parquet(tmp_path / "twice", [*twice, twice[0]])
    strict = {"clean": {"max_reject_share": 0.9}}
    score_file(str(items), model=model, out=tmp_path / "short", settings=strict)
    score_file(str(again), model=model, out=tmp_path / "long", settings=strict)
    first, second = (pq.read_table(tmp_path / way / "scores.parquet") for way in ("short", "long"))
    assert first.replace_schema_metadata().equals(second.replace_schema_metadata())


@settings(max_examples=5)
@given(shard_items=st.integers(1, 70), group=st.integers(1, 70))
def test_bytes_depend_neither_on_shards_nor_on_groups_of_rows(model, tmp_path_factory, shard_items, group):
    folder = tmp_path_factory.mktemp("raw")
    rows = make_rows(60, without_id=(0, 8, 9, 10, 11, 12, 13, 14, 15, 59))  # a whole pass among them
    items = write_parquet(folder, rows, row_group_size=60)
    whole = score_rows(model, items, folder / "whole", shard_items=60)
    pq.write_table(pq.read_table(items), items, row_group_size=group)
    assert score_rows(model, items, folder / "cut", shard_items=shard_items) == whole


def test_one_and_two_workers_give_the_same_bytes(model, tmp_path):
    items = write_parquet(tmp_path, make_rows(60, without_id=(5, 17)))
    assert score_rows(model, items, tmp_path / "two", workers=2) == score_rows(model, items, tmp_path / "one")


@pytest.mark.parametrize(
    ("ids", "goes"),
    [
        (["a", "b", "c"], True),
        (["a", "b ", "b"], False),  # blanks around an id are none
        (["a", None, ""], True),  # no ids: both rows are rejected
        ([3, 1, 2], True),
        ([3, 1, 3], False),
        ([1.0, 2.0, 3.0], False),  # only stage 1 knows what they are
    ],
)
def test_only_ids_that_are_there_once_go_the_short_way(model, tmp_path, ids, goes):
    rows = [{"item_id": item_id, "title": "A", "tags": ["war"]} for item_id in ids]
    items = write_parquet(tmp_path, rows, schema=None)
    assert (plan_of(model, items, tmp_path)[2] is not None) == goes
    found = score_file(str(items), model=model, out=tmp_path / "out", settings={"clean": {"max_reject_share": 0.9}})
    assert found["n_items"] == len({str(item_id).strip() for item_id in ids if item_id})


def test_other_files_and_columns_that_are_looked_through_go_the_long_way(model, tmp_path):
    items = write_parquet(tmp_path, make_rows(9))
    assert plan_of(model, items, tmp_path)[2] is not None
    assert plan_of(model, items, tmp_path, catalog={"text": ("title",)})[2] is None
    tags = tmp_path / "tags.csv"
    tags.write_text("item_id,tag\n1001,war\n")
    assert plan_of(model, items, tmp_path, scoring={"tags": str(tags)})[2] is None
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"item_id": 1, "tags": ["war"]}\n')
    assert plan_of(model, lines, tmp_path)[2] is None


def test_too_many_rejects_are_told(model, tmp_path):
    items = write_parquet(tmp_path, make_rows(10, without_id=range(5)))
    with pytest.raises(CatalogError, match=r"5 of 10 rows of the items are rejected \(50\.0%\).*no item_id"):
        score_file(str(items), model=model, out=tmp_path / "out", settings={})
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_meanwhile_is_told(model, tmp_path):
    items = write_parquet(tmp_path, make_rows(10))
    (tmp_path / "build").mkdir()
    chosen, expected, rows = plan_of(model, items, tmp_path)

    class Changed(type(SILENT)):
        def update(self, done, total=None, **facts):
            items.write_bytes(items.read_bytes() + b" ")

    with pytest.raises(CatalogError, match=r"items\.parquet"):
        score_raw(chosen, model, rows, tmp_path / "build", expected=expected, run="r", progress=Changed())


def test_lists_of_texts_are_read_from_groups_of_rows_of_any_size(tmp_path):
    """A batch of two groups would have two dictionaries, which Arrow does not put into one list array."""
    from pipeline.readers import LISTS, Wanted, read

    items = write_parquet(tmp_path, make_rows(20), row_group_size=7)
    wanted = Wanted(("item_id", "tags"), "tags", "item_id")
    found = [value for rows in read(str(items), wanted) for value in rows.table[LISTS].to_pylist()]
    assert found == [row["tags"] for row in make_rows(20)]
