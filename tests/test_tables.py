"""Reading: formats, lines, and rows that cannot be read; joins, duplicates and rows that belong to nothing."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_catalog import GOOD, HEADER, clean_csv, clean_files

from pipeline.config import make_settings
from pipeline.digests import sha256_of
from pipeline.errors import CatalogError
from pipeline.inputs import input_paths
from pipeline.readers import LINE, LISTS, Wanted, read


def rows_of(path, *columns, **options):
    """Return the good rows as tuples of line and values, and the broken ones as pairs of line and reason."""
    blocks = list(read(str(path), Wanted(columns, **options)))
    good = [tuple(row[name] for name in (LINE, *columns)) for block in blocks for row in block.table.to_pylist()]
    return good, [(broken.line, broken.reason) for block in blocks for broken in block.broken]


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_gives_lines_and_takes_quotes_breaks_and_blank_lines(tmp_path):
    path = write(tmp_path, "a.csv", '\ufeffa,b\r\n1,"x, ""y"""\r\n\r\n2,"two\nlines"\r\n3,\r\n')
    assert rows_of(path, "a", "b") == ([(2, "1", 'x, "y"'), (4, "2", "two\nlines"), (6, "3", None)], [])


def test_a_last_row_without_a_line_break_counts(tmp_path):
    assert rows_of(write(tmp_path, "a.csv", "a\n1\n2"), "a") == ([(2, "1"), (3, "2")], [])


def test_too_many_or_few_fields_and_bad_bytes_break_their_row_only(tmp_path):
    path = write(tmp_path, "a.csv", b'a,b\n1\n"2\n",x\n3,\xff\n4,y,z\n5,w\n\xff\n')
    good, broken = rows_of(path, "a", "b")
    assert good == [(3, "2\n", "x"), (7, "5", "w")]
    wrong = [(2, "1 fields instead of 2"), (5, "not UTF-8"), (6, "3 fields instead of 2"), (8, "1 fields instead of 2")]
    assert sorted(broken) == wrong


def test_bad_bytes_are_shown_as_what_they_are(tmp_path):
    (block,) = read(str(write(tmp_path, "a.csv", b"a,b\n1,caf\xe9\n")), Wanted(("a",)))
    assert json.loads(block.broken[0].raw) == {"a": "1", "b": "caf\\xe9"}


def test_rows_and_lines_stay_right_over_many_blocks(tmp_path):
    lines = ["a,b"] + [f"{n},{'x' * 1000}" if n % 1000 else f"{n}" for n in range(1, 20_001)]
    good, broken = rows_of(write(tmp_path, "a.csv", "\n".join(lines)), "a")
    assert [line - int(value) for line, value in good] == [1] * 19_980
    assert broken == [(n + 1, "1 fields instead of 2") for n in range(1000, 20_001, 1000)]


def test_json_lines_break_alone(tmp_path):
    text = b'{"a": 1, "b": ["x", 2, null]}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"b": "y\\u0000", "a": null}'
    path = write(tmp_path, "a.jsonl", text)
    blocks = list(read(str(path), Wanted(("a", "b"), list_column="b")))
    good = [row for block in blocks for row in block.table.to_pylist()]
    assert [(row[LINE], row["a"], row["b"], row[LISTS]) for row in good] == [
        (1, "1", None, ["x", "2", None]),
        (6, None, "y\ufffd", None),  # NUL does not survive: files of C programs end there
    ]
    broken = [(row.line, row.reason) for block in blocks for row in block.broken]
    assert broken == [(3, "not valid JSON"), (4, "not a JSON object"), (5, "not UTF-8")]


def test_json_nested_a_hundred_thousand_deep_does_no_harm(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    path = write(tmp_path, "a.jsonl", f'{{"a": "1", "b": {deep}}}\n{{"a": {deep}}}\n')
    good, broken = rows_of(path, "a", list_column="b")
    assert good == [(1, "1")]
    assert broken == [(2, "a: an object or a list stands where text belongs")]


def test_parquet_gives_text_of_any_simple_type(tmp_path):
    table = pa.table({"a": [1.0, None], "b": pa.array(["x", "y"]).dictionary_encode(), "c": [["p"], None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet", "a", "b", "c", list_column="c")[0] == [
        (1, "1", "x", None),
        (2, None, "y", None),
    ]


def test_bad_bytes_in_parquet_break_their_row_only(tmp_path):
    values = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"]).buffers())
    pq.write_table(pa.table({"a": [7, 8], "b": values}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet", "a", "b") == ([(1, "7", "ok")], [(2, "not UTF-8")])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.json.gz", "a.parquet"])
def test_every_format_gives_the_same_catalog(tmp_path, name):
    rows = [
        {"item_id": 5, "title": "Dawn, the", "tags": "Mall;zombies", "genre": "Horror", "theme": "Zombies"},
        {"item_id": 6, "title": None, "tags": "new york", "genre": "Comedy", "theme": None},
    ]
    delimiter = "\t" if ".tsv" in name else ","
    lines = [delimiter.join(HEADER.split(","))]
    lines += [delimiter.join(f'"{value}"' if value else "" for value in row.values()) for row in rows]
    text = "\n".join(map(json.dumps, rows) if "json" in name else lines)
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        write(tmp_path, name, gzip.compress(text.encode()) if name.endswith(".gz") else text)
    found = clean_files(tmp_path, catalog={"items": name})
    assert found.item(5)["tags"] == ["mall", "zombies"]
    assert found.item(6)["title"] is None
    assert [item["genre"] for item in found.items] == ["Horror", "Comedy"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("items.csv", b"", "items.csv: is empty"),
        ("items.csv", b" \n\n", "items.csv: is empty"),
        ("items.csv", HEADER.encode(), "has no rows"),
        ("items.csv", b"item_id,titel,tags,genre,theme\n1,a,b,c,d\n", "no column 'title'; did you mean 'titel'"),
        ("items.csv", HEADER.encode() + b",tags\n1,a,b,c,d,e\n", "line 1: the column 'tags' stands there 2 times"),
        ("items.csv", HEADER.encode() + b'\n1,a,b,c,d\n2,"a,b,c,d\n3,a,b,c,d\n', "quote that opens in line 3 or below"),
        ("items.csv", HEADER.encode() + b'\n1,a,b,c,"d\n3,a,b,c,d\n', "a quote that opens in line 2 or below"),
        ("items.csv", b"caf\xe9,title\n1,a\n", "line 1: the header is not UTF-8: caf.xe9"),
        ("items.csv", HEADER.encode("utf-16"), "line 1: the text is UTF-16"),
        ("items.csv.gz", gzip.compress(HEADER.encode() * 99, mtime=0)[:40], "items.csv.gz: cannot be unpacked"),
        ("items.csv.gz", HEADER.encode(), "items.csv.gz: cannot be unpacked"),
        ("items.json", b'[{"item_id": 1}]', "begins with '\\['; one JSON object a line"),
        ("items.jsonl", b'{"item_id": 1, "tittle": 2}\n', "no column 'title'; did you mean 'tittle'"),
        ("items.parquet", b"PAR1 no PAR1", "items.parquet: cannot be read as .parquet"),
        ("items.txt", b"x", "extension '.txt' is not one of"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, name, text, message):
    write(tmp_path, name, text)
    with pytest.raises(CatalogError, match=message):
        clean_files(tmp_path, catalog={"items": name})
    assert not [path for path in (tmp_path / "clean-training").iterdir() if path.name.startswith(".")]


def test_parquet_with_a_column_that_is_no_text_is_an_error(tmp_path):
    pq.write_table(pa.table({"item_id": [1], "title": [{"en": "x"}]}), tmp_path / "a.parquet")
    with pytest.raises(CatalogError, match="'title' is struct<en: string>; text is needed"):
        rows_of(tmp_path / "a.parquet", "item_id", "title")


def test_an_absent_file_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match=r"items.csv: No such file"):
        clean_files(tmp_path)


def test_bytes_other_than_planned_are_refused(tmp_path):
    path = write(tmp_path, "items.csv", f"{HEADER}\n{GOOD}")
    with pytest.raises(CatalogError, match="changed while the run was on"):
        clean_files(tmp_path, expected={str(path): "0" * 64})


def test_of_a_directory_only_the_planned_files_are_read_and_none_may_be_missing(tmp_path):
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", "a.csv", f"{HEADER}\n{GOOD}")
    planned = {str(path): sha256_of(path)}
    write(tmp_path / "in", "b.csv", f"{HEADER}\n{GOOD}")
    assert len(clean_files(tmp_path, catalog={"items": "in"}, expected=planned).items) == 3
    path.unlink()
    with pytest.raises(CatalogError, match=r"a.csv: is gone since the run was planned"):
        clean_files(tmp_path, catalog={"items": "in"}, expected=planned)


def test_names_without_a_header_must_fit(tmp_path):
    catalog = {
        "item_id": "",
        "title": "",
        "tags_column": "",
        "word_columns": "text",
        "column_names": "text,genre,theme",
    }
    found = clean_csv(tmp_path, '"The dead, the living",Horror,Zombies\nThe city,Comedy,City\n', catalog=catalog)
    assert [(item["item_id"], item["tags"], item["tag_counts"]) for item in found.items] == [
        (1, ["dead", "living", "the"], [1, 1, 2]),
        (2, ["city", "the"], [1, 1]),
    ]
    with pytest.raises(CatalogError, match=r"line 1 has 4 fields, .catalog. column_names names 3"):
        clean_csv(tmp_path, "a,b,c,d\n", catalog=catalog)


def test_row_numbers_go_on_over_files_and_count_broken_rows(tmp_path):
    for name, text in {"a1.csv": "x;y,Horror\nbroken\nz,Comedy\n", "a2.csv": "v,Horror\n"}.items():
        write(tmp_path, name, text)
    catalog = {"item_id": "", "title": "", "levels": "genre", "column_names": "tags,genre", "items": "a*.csv"}
    found = clean_files(tmp_path, catalog=catalog)
    assert [item["item_id"] for item in found.items] == [1, 3, 4]
    assert found.rejects[0]["source"] == str(tmp_path / "a1.csv")
    assert found.reasons == [("item", 2, "1 fields instead of 2")]


def test_globs_are_expanded_sorted_and_absent_files_are_named(tmp_path):
    for name in ("b.csv", "a.csv"):
        write(tmp_path, name, "")
    catalog = {"items": f"{tmp_path}/*.csv", "tags": f"{tmp_path}/none*.csv", "labels": "absent.csv"}
    paths = [file.path for file in input_paths(make_settings({"catalog": catalog}), role="training")]
    assert paths == [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv", f"{tmp_path}/none*.csv", "absent.csv"]


def test_ids_keep_their_type(tmp_path):
    for ids, expected in {
        "7 8": [7, 8],
        "07 8": ["07", "8"],
        "a 8": ["a", "8"],
        f"{2**63} 8": [str(2**63), "8"],
    }.items():
        rows = [f"{item_id},x,y,{genre},\n" for item_id, genre in zip(ids.split(), ("A", "B"), strict=True)]
        found = clean_csv(tmp_path, f"{HEADER}\n{''.join(rows)}")
        assert [item["item_id"] for item in found.items] == expected
    rows = [{"item_id": "7", "title": "", "tags": ["x;y", "z"], "genre": genre, "theme": ""} for genre in "AB"]
    rows[1]["item_id"] = "8"
    write(tmp_path, "items.jsonl", "\n".join(map(json.dumps, rows)))
    found = clean_files(tmp_path, catalog={"items": "items.jsonl"})
    assert [item["item_id"] for item in found.items] == ["7", "8"]  # text in JSON is text
    assert found.items[0]["tags"] == ["x;y", "z"]  # the values of a list are not split


LONG = {
    "tags": "tags.csv",
    "labels": "labels.csv",
    "tags_column": "tag",
    "tags_item_id": "film",
    "labels_item_id": "id",
}


def long_form(folder, tags, labels, items="item_id,title\n2,b\n1,a\n"):
    write(folder, "items.csv", items)
    write(folder, "tags.csv", "film,tag\n" + tags)
    write(folder, "labels.csv", "id,genre,theme\n" + labels)
    return clean_files(folder, catalog=LONG)


def test_the_long_form_is_joined_by_id_and_counts_add_up(tmp_path):
    found = long_form(tmp_path, "1,Fun\n2,dark\n1,pixar\n1,fun\n", "1,Comedy,Toys\n2,Horror,-\n")
    assert [(item["item_id"], item["tags"], item["tag_counts"], item["n_raw_tags"]) for item in found.items] == [
        (2, ["dark"], [1], 1),
        (1, ["fun", "pixar"], [2, 1], 3),
    ]
    assert [(item["genre"], item["theme"]) for item in found.items] == [("Horror", "-"), ("Comedy", "Toys")]
    counted = [found.statistics[name] for name in ("n_rows", "n_rows_of_labels", "n_rows_of_tags")]
    assert counted == [2, 2, 4]


def test_the_order_of_tag_rows_and_of_tags_matters_to_tag_order_only(tmp_path):
    labels = "1,Comedy,Toys\n2,Horror,-\n"
    contents = [long_form(tmp_path, tags, labels).items for tags in ("1,a\n2,b\n1,c\n", "1,c\n1,a\n2,b\n")]
    orders = [[item.pop("tag_order") for item in items] for items in contents]
    assert contents[0] == contents[1]
    assert orders == [[[0], [0, 1]], [[0], [1, 0]]]


def test_rows_of_tags_and_labels_that_belong_to_nothing_are_rejected(tmp_path):
    found = long_form(
        tmp_path,
        "1,a\n9,b\n,c\n1,  \n2," + "x" * 10_000 + "\n",
        "1,Comedy,Toys\n1,Horror,\n8,Horror,\n,Horror,\n2,,Toys\n2,Horror,\n",
    )
    assert found.reasons == [
        ("tag", 3, "item_id is not in the items"),
        ("tag", 4, "no item_id"),
        ("tag", 5, "empty tag"),
        ("tag", 6, "tag over 100 characters"),
        ("label", 3, "duplicate item_id"),
        ("label", 4, "item_id is not in the items"),
        ("label", 5, "no item_id"),
        ("label", 6, "level-2 label (theme) without a level-1 label"),
    ]
    assert json.loads(found.rejects[0]["raw"]) == {"film": "9", "tag": "b"}
    assert len(found.rejects[3]["raw"]) == 2000 and found.rejects[3]["item_id"] == "2"
    assert found.item(1)["genre"] == "Comedy" and found.item(2)["genre"] == "Horror"


def test_an_untagged_item_is_no_reject(tmp_path):
    found = long_form(tmp_path, "1,a\n", "1,Comedy,Toys\n2,Horror,-\n")
    assert found.item(2)["tags"] == [] and found.item(2)["n_raw_tags"] == 0
    assert found.statistics["items_without_tags"] == 1


# 25 examples by default, 300 with the slow ones.
batches = pytest.mark.parametrize("batch", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 12))])
cells = st.text(st.sampled_from('a1 ;"\n\r,é\0\u202e\ud7ff😀=\t-\\'), max_size=6)


@batches
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(cells, cells, cells, cells, cells), min_size=1, max_size=8), st.booleans())
def test_every_row_of_a_csv_ends_cleaned_or_rejected_exactly_once(tmp_path_factory, batch, rows, chop):
    folder = tmp_path_factory.mktemp("catalog")
    body = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    if chop:  # one row too short
        body.append("chopped")
    text = HEADER + "\n" + "\n".join([*body, "good1,x,y,A,B", "good2,x,y,C,D"]) + "\n"
    found = clean_csv(folder, text)
    kept = [reject for reject in found.rejects if reject["scope"] == "item"]
    assert len(found.items) + len(kept) == len(rows) + 2 + chop
    ids = [item["item_id"] for item in found.items]
    assert len(set(ids)) == len(ids)
    assert len({reject["line"] for reject in kept}) == len(kept)


@batches
@settings(deadline=None, max_examples=25)
@given(st.lists(st.binary(max_size=30) | st.text(max_size=20).map(str.encode), max_size=8))
def test_every_line_of_json_ends_cleaned_or_rejected_exactly_once(tmp_path_factory, batch, lines):
    folder = tmp_path_factory.mktemp("catalog")
    lines = [line.replace(b"\n", b"") for line in lines]
    good = [{"item_id": n, "title": "t", "tags": ["x", "\0"], "genre": "AB"[n], "theme": None} for n in range(2)]
    write(folder, "items.jsonl", b"\n".join([json.dumps(good[0]).encode(), *lines, json.dumps(good[1]).encode()]))
    found = clean_files(folder, catalog={"items": "items.jsonl"})
    n_lines = sum(bool(line.decode(errors="replace").strip()) for line in lines)
    assert len(found.items) + sum(reject["scope"] == "item" for reject in found.rejects) == n_lines + 2


@batches
@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["items.csv", "items.tsv", "items.jsonl", "items.csv.gz", "items.parquet"]), st.binary(max_size=60)
)
def test_whatever_the_bytes_there_is_no_error_but_a_catalog_error(tmp_path_factory, batch, name, data):
    folder = tmp_path_factory.mktemp("catalog")
    header = HEADER.replace(",", "\t") if ".tsv" in name else HEADER
    text = f"{header}\n1,a,b,A,\n".encode() + data
    write(folder, name, gzip.compress(text) + data if name.endswith(".gz") else text if "sv" in name else data)
    try:
        clean_files(folder, catalog={"items": name})
    except CatalogError as error:
        assert str(folder) in str(error) or "labelled" in str(error)


def test_a_row_of_empty_fields_is_a_row_and_a_blank_line_is_none(tmp_path):
    write(tmp_path, "a.csv", "tags,genre\nx,Horror\n,\n\ny,Comedy\n")
    catalog = {"item_id": "", "title": "", "levels": "genre", "items": "a.csv"}
    found = clean_files(tmp_path, catalog=catalog)
    assert [(item["item_id"], item["tags"]) for item in found.items] == [(1, ["x"]), (2, []), (3, ["y"])]


def test_columns_may_be_called_row_and_line(tmp_path):
    write(tmp_path, "a.csv", "row,line,genre\n7,x,Horror\n8,y,Comedy\n")
    catalog = {"item_id": "row", "title": "", "tags_column": "line", "levels": "genre", "items": "a.csv"}
    assert [item["item_id"] for item in clean_files(tmp_path, catalog=catalog).items] == [7, 8]


def test_blanks_around_an_id_do_not_count(tmp_path):
    write(tmp_path, "a.csv", "item_id,tags,genre\n 1,x,Horror\n2 ,y,Comedy\n1,z,Comedy\n")
    found = clean_files(tmp_path, catalog={"title": "", "levels": "genre", "items": "a.csv"})
    assert [item["item_id"] for item in found.items] == [1, 2]
    assert found.reasons == [("item", 4, "duplicate item_id")]


def test_objects_and_lists_where_text_belongs_break_their_row_of_json(tmp_path):
    rows = [
        '{"item_id": 1, "tags": ["a", "b"], "genre": "Horror"}',
        '{"item_id": 2, "tags": {"k": 1}, "genre": "Horror"}',
        '{"item_id": 3, "tags": [["a"]], "genre": "Comedy"}',
        '{"item_id": 4, "tags": ["a", {"b": 1}], "genre": "Comedy"}',
        '{"item_id": 5, "tags": "c; d", "genre": ["q"]}',
        '{"item_id": 6, "tags": "c; d", "genre": "Comedy"}',
    ]
    write(tmp_path, "a.jsonl", "\n".join(rows) + "\n")
    found = clean_files(tmp_path, catalog={"title": "", "levels": "genre", "items": "a.jsonl"})
    assert [(item["item_id"], item["tags"]) for item in found.items] == [(1, ["a", "b"]), (6, ["c", "d"])]
    reason = "an object or a list stands where text belongs"
    assert found.reasons == [("item", line, f"{'genre' if line == 5 else 'tags'}: {reason}") for line in (2, 3, 4, 5)]
