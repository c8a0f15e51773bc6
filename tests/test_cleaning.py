"""Cleaning: what becomes of a tag, what stops a run, how items are split, and that nothing depends on order."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_catalog import GOOD, HEADER, SPLITS, clean_csv, clean_files

from pipeline.cleaning import clean_tags
from pipeline.config_catalog import CleanSettings
from pipeline.errors import CatalogError
from pipeline.spelling import normalise
from pipeline.splitting import split_of
from pipeline.tagging import split_cells, words_of
from pipeline.taxonomy import Taxonomy

CLEAN = CleanSettings()
ALL = CleanSettings(unescape_url=True)
NOTHING = CleanSettings(unescape_html=False, lowercase=False, strip_punctuation=False)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Zombie   MOVIE\t", "zombie movie"),
        ("sci-fi", "sci fi"),
        ("film_noir", "film noir"),
        ("\u2018Quoted\u2019!", "quoted"),
        ("rock &amp;amp; roll", "rock & roll"),
        ("Straße", "strasse"),
        ("ﬁlm", "film"),  # the ligature fi
        ("e\u0301te\u0301", "été"),
        ("a\u202eb\u200bc", "abc"),
        ("a\0b", "a b"),
        ("C#", "c#"),
        ("(C++)", "c++"),
        ("don't", "don't"),
        ("???", ""),
        ("50%25", "50%25"),
    ],
)
def test_a_tag_is_normalised(raw, expected):
    assert normalise(raw, CLEAN) == expected


def test_settings_switch_rules_off_and_on():
    assert normalise(" A-b_&amp;! ", NOTHING) == "A-b_&amp;!"
    assert normalise("pop%20art%2Fnew", ALL) == "pop art/new"


texts = st.text(max_size=12) | st.text(st.sampled_from("aA&;%25amp#x-_. ßİ\u0345\u0301ﬁ\u00ad'"), max_size=14)


@given(
    st.lists(st.none() | st.lists(st.none() | texts, max_size=6), max_size=6), st.sampled_from([CLEAN, ALL, NOTHING])
)
def test_clean_tags_are_sorted_distinct_and_clean_already(rows, settings):
    found = clean_tags(pa.array(rows, pa.list_(pa.string())), settings).tags
    assert len(found) == len(rows)
    for tags in found.to_pylist():
        assert tags == sorted(set(tags)) and all(0 < len(tag) <= settings.max_tag_length for tag in tags)
    assert clean_tags(found, settings).tags.equals(found)


@given(st.lists(st.lists(texts, max_size=6), max_size=6))
def test_the_order_of_tags_and_of_items_does_not_matter(rows):
    kind = pa.list_(pa.string())
    forward = clean_tags(pa.array(rows, kind), CLEAN).tags.to_pylist()
    backward = clean_tags(pa.array([row[::-1] for row in rows[::-1]], kind), CLEAN).tags.to_pylist()
    assert forward == backward[::-1]


def test_a_slice_of_lists_is_cleaned_as_itself():
    rows = pa.array([["A"], None, ["B", "b"], []])
    assert clean_tags(rows.slice(1, 2), CLEAN).tags.to_pylist() == [[], ["b"]]


def test_tags_over_the_length_go_however_long_their_escapes_are():
    rows = pa.array([["x" * 100, "x" * 101, "&quot;" + "y" * 99 + "&quot;", "z" * 10_000]])
    assert clean_tags(rows, CLEAN).tags.to_pylist() == [["x" * 100, "y" * 99]]


def test_escaped_separators_separate():
    cells = pa.array(["Home &gt; A%2CB|c;d", None, "plain"])
    expected = [["Home ", " A", "B", "c", "d"], None, ["plain"]]
    assert split_cells(cells, separators=">|,;", clean=ALL).to_pylist() == expected
    assert split_cells(pa.array(["a;b"]), separators="", clean=CLEAN).to_pylist() == [["a;b"]]


def test_words_are_runs_of_letters_and_digits():
    cells = pa.array(["L'été, 2nd-hand ' &amp; x_y", None])
    found = words_of(cells, clean=CLEAN).to_pylist()
    assert [word for word in found[0] if word] == ["L'été", "2nd", "hand", "x", "y"]
    assert found[1] is None


def test_what_is_written_is_what_the_item_says(tmp_path):
    found = clean_csv(
        tmp_path, f"{HEADER}\n1, Dawn ,Zombies; zombies!;;Mall,Horror, Zombies \n2,Day,,Horror,\n3,M,x,Comedy,-\n"
    )
    assert found.items[0] == {
        "item_id": 1,
        "title": " Dawn ",
        "tags": ["mall", "zombies"],
        "tag_counts": [1, 2],
        "tag_order": [1, 0],
        "n_raw_tags": 3,
        "genre": "Horror",
        "theme": "Zombies",
        "split": "train",
    }
    assert [(item["genre"], item["theme"]) for item in found.items[1:]] == [("Horror", None), ("Comedy", "-")]
    taxonomy = Taxonomy.from_json((found.folder / "taxonomy.json").read_text())
    assert taxonomy.classes == ((("Comedy",), ("Horror",)), (("Comedy", "-"), ("Horror", "Zombies")))


def test_statistics_add_up(tmp_path):
    found = clean_csv(tmp_path, f"{HEADER}\n{GOOD}3,again,x,Comedy,City\n4,n,{'y' * 101};;Mall,,\n")
    statistics = found.statistics
    assert statistics["n_rows"] == 5 and statistics["n_items"] == 4
    assert statistics["rejects"] == {
        "item": {"duplicate item_id": 1},
        "tag": {"tag over 100 characters": 1},
        "label": {},
    }
    assert (statistics["tag_applications"], statistics["tag_applications_kept"], statistics["tags_of_items"]) == (
        7,
        6,
        6,
    )
    assert (statistics["distinct_raw_tags"], statistics["distinct_raw_tags_changed"]) == (6, 2)
    assert statistics["distinct_tags"] == 4
    assert statistics["tags_per_item"] == {
        "mean": 1.5,
        "0%": 1,
        "25%": 1,
        "50%": 1,
        "75%": 2,
        "90%": 2,
        "99%": 2,
        "100%": 2,
    }
    assert statistics["labels"]["theme"] == {
        "known": 3,
        "unknown": 1,
        "stopped": 0,
        "classes": [{"path": ["Comedy", "City"], "items": 1}, {"path": ["Horror", "Zombies"], "items": 2}],
    }
    assert statistics["split"] == {"train": 4, "validation": 0, "test": 0}
    assert statistics["split_labelled"] == {"train": 3, "validation": 0, "test": 0}


def test_items_that_cannot_stay_are_rejected_with_line_and_reason(tmp_path):
    bad = "1,dup,x,Horror,Zombies\n,no id,x,Horror,\n  ,blank id,x,Horror,\n7,orphan,x,,Zombies\n8,short\n9,a,b,c,d,e\n"
    found = clean_csv(tmp_path, f"{HEADER}\n{GOOD}{bad}")
    assert found.reasons == [
        ("item", 5, "duplicate item_id"),
        ("item", 6, "no item_id"),
        ("item", 7, "no item_id"),
        ("item", 8, "level-2 label (theme) without a level-1 label"),
        ("item", 9, "2 fields instead of 5"),
        ("item", 10, "6 fields instead of 5"),
    ]
    assert (
        found.rejects[0]["raw"]
        == '{"item_id": "1", "title": "dup", "tags": "x", "genre": "Horror", "theme": "Zombies"}'
    )
    assert found.rejects[4]["raw"] == "8,short"


def test_of_two_rows_with_an_id_the_first_good_one_stays(tmp_path):
    found = clean_csv(tmp_path, f"{HEADER}\n1,orphan,x,,Zombies\n{GOOD}")
    assert found.item(1)["title"] == "Dawn"


def test_a_tag_of_ten_thousand_characters_goes_and_its_item_stays(tmp_path):
    found = clean_csv(tmp_path, f"{HEADER}\n{GOOD}4,Long,{'x' * 10_000};good,Comedy,City\n")
    assert found.item(4)["tags"] == ["good"]
    (reject,) = found.rejects
    assert (reject["scope"], reject["line"], reject["item_id"], reject["raw"]) == ("tag", 5, "4", "x" * 2000)


RAW = '{"title": "x", "tags": "y", "genre": "A", "theme": "B"}'


def test_too_many_rejects_stop_the_run_and_name_the_reasons(tmp_path):
    with pytest.raises(CatalogError) as error:
        clean_csv(tmp_path, f"{HEADER}\n{GOOD},x,y,A,B\n", clean_settings={"max_reject_share": 0.1})
    assert str(error.value) == (
        f"1 of 4 rows of the items are rejected (25.0%), more than [clean] max_reject_share = 0.1: 1 x no item_id "
        f"({tmp_path}/items.csv line 5: {RAW!r}). Mend the files, or raise max_reject_share"
    )
    long_tag = f"4,d,{'x' * 101},Comedy,City\n"
    with pytest.raises(CatalogError, match=r"1 of 6 tags are rejected .16.7%."):
        clean_csv(tmp_path, f"{HEADER}\n{GOOD}{long_tag}", clean_settings={"max_reject_share": 0.1})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,a,b,,\n2,c,d,,\n", "no item has a label in genre, theme; name the columns"),
        ("1,a,b,Horror,\n2,c,d,Horror,Zombies\n", "one class only in genre, theme: Horror > Zombies"),
        ("1,a,b,Horror,Zombies\n", "one class only"),
        ("1,a,,Horror,\n2,c,;;,Comedy,\n", "no item has a tag"),
    ],
)
def test_a_catalog_with_nothing_to_learn_is_an_error(tmp_path, rows, message):
    with pytest.raises(CatalogError, match=message):
        clean_csv(tmp_path, f"{HEADER}\n{rows}")


def test_one_class_at_the_top_is_fine_where_there_are_several_below(tmp_path):
    found = clean_csv(tmp_path, f"{HEADER}\n1,a,b,Horror,Zombies\n2,c,d,Horror,Ghosts\n")
    assert found.statistics["labels"]["genre"]["known"] == 2


def test_no_labelled_item_in_the_training_part_is_an_error(tmp_path):
    text = f"{HEADER},part\n1,a,b,Horror,,test\n2,c,d,Comedy,,dev\n3,e,f,,,train\n"
    with pytest.raises(
        CatalogError, match=r"no labelled item is in the training part .labelled: test 1, validation 1."
    ):
        clean_csv(tmp_path, text, catalog={"split": "part"})


def test_classes_too_rare_are_not_learned_and_their_labels_stay(tmp_path):
    found = clean_csv(
        tmp_path,
        f"{HEADER}\n{GOOD}4,x,y,Horror,Ghosts\n5,x,y,War,\n6,x,y,War,\n",
        clean_settings={"min_class_items": 2},
    )
    assert [item["theme"] for item in found.items] == ["Zombies", "Zombies", "City", "Ghosts", None, None]
    taxonomy = Taxonomy.from_json((found.folder / "taxonomy.json").read_text())
    assert taxonomy.classes[0] == (("Horror",), ("War",))
    assert taxonomy.classes[1] == (("Horror", "Zombies"), ("War", "-"))


def test_a_declared_taxonomy_rejects_other_labels_and_is_kept_whole(tmp_path):
    (tmp_path / "paths.csv").write_text("genre,theme\nHorror,Zombies\nComedy,City\nDrama,War\n")
    found = clean_csv(tmp_path, f"{HEADER}\n{GOOD}4,x,y,Horor,Zombies\n", catalog={"taxonomy": "paths.csv"})
    assert found.reasons == [("item", 5, "level-1 label (genre) is not in the taxonomy")]
    assert ("Drama", "War") in Taxonomy.from_json((found.folder / "taxonomy.json").read_text()).classes[1]


def test_a_catalog_that_is_only_scored_needs_no_labels(tmp_path):
    (tmp_path / "new.csv").write_text("item_id,title,tags\n1,a,Mall\n")
    found = clean_files(tmp_path, role="scoring", scoring={"items": "new.csv"})
    assert found.items[0]["tags"] == ["mall"] and found.items[0]["genre"] is None
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "items.parquet",
        "rejects.parquet",
        "statistics.json",
        "tag_lists.json",
        "tags.parquet",
    ]


def test_the_split_is_that_of_the_hash_whatever_the_order(tmp_path):
    rows = [f"{n},t,x,{'AB'[n % 2]},\n" for n in range(400)]
    shares = {"validation_share": 0.25, "test_share": 0.25}
    found = clean_csv(tmp_path, f"{HEADER}\n{''.join(rows)}", clean_settings=shares)
    digits = [int(hashlib.sha256(f"tagladder:{n}".encode()).hexdigest()[:13], 16) / 16**13 for n in range(400)]
    expected = ["test" if x < 0.25 else "validation" if x < 0.5 else "train" for x in digits]
    assert [item["split"] for item in found.items] == expected
    settings = CleanSettings.model_validate(shares)
    assert [split_of(n, settings) for n in range(400)] == expected
    again = clean_csv(tmp_path, f"{HEADER}\n{''.join(rows[::-1])}", clean_settings=shares)
    assert [item["split"] for item in again.items] == expected[::-1]


def test_the_split_comes_from_a_column_where_one_is_named(tmp_path):
    text = f"{HEADER},part\n1,a,b,A,,Train\n2,c,d,B,, dev \n3,e,f,A,,TEST\n4,g,h,A,,\n5,g,h,A,,later\n"
    found = clean_csv(tmp_path, text, catalog={"split": "part"})
    assert [item["split"] for item in found.items] == ["train", "validation", "test", "train"]
    assert found.reasons == [("item", 6, "split is not train, validation or test")]
    assert '"part": "later"' in found.rejects[0]["raw"]


def test_the_same_catalog_gives_the_same_bytes(tmp_path):
    rows = "".join(f"{n % 2500},t{n},tag {n % 97};Tag {n % 89},{'ABC'[n % 3]},\n" for n in range(3000))
    first = clean_csv(tmp_path, f"{HEADER}\n{rows}", clean_settings=SPLITS).folder
    bytes_of_first = {path.name: path.read_bytes() for path in first.iterdir()}
    again = clean_csv(tmp_path, f"{HEADER}\n{rows}", clean_settings=SPLITS).folder
    assert {path.name: path.read_bytes() for path in again.iterdir()} == bytes_of_first


def test_windows_do_not_show_in_the_result(tmp_path, monkeypatch):
    text = f"{HEADER}\n" + "".join(f"{n},t,a{n};b,{'AB'[n % 2]},\n" for n in range(20)) + ",x,y,A,\n5,x,y,A,\n"
    whole = clean_csv(tmp_path, text)
    monkeypatch.setattr("pipeline.windows.WINDOW", 7)
    monkeypatch.setattr("pipeline.windows.PART", 1)
    pieces = clean_csv(tmp_path, text)
    assert pieces.items == whole.items and pieces.rejects == whole.rejects and pieces.statistics == whole.statistics


def test_cleaning_tags_loads_no_database():
    code = "import sys, pipeline.cleaning, pipeline.taxonomy; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DATA = os.environ.get("TAGLADDER_DATA", "")
REAL = {
    "movies": {
        "items": "movies/movies.csv",
        "tags": "movies/tags.csv",
        "labels": "movies/labels.csv",
        "item_id": "movieId",
        "labels_item_id": "item_id",
        "tags_column": "tag",
        "level_columns": "level1, level2, level3",
    },
    "products": {
        "items": "products/train.json",
        "item_id": "ID",
        "title": "Name",
        "tags_column": "CategoryText",
        "tag_separators": ">|/,;",
        "word_columns": "Name, Description",
        "level_columns": "lvl1, lvl2, lvl3",
    },
    "articles": {
        "items": "articles/articles.csv",
        "item_id": "",
        "title": "",
        "tags_column": "",
        "word_columns": "text",
        "column_names": "text, level1, level2, level3",
        "level_columns": "level1, level2, level3",
    },
}


@pytest.mark.skipif(not DATA, reason="TAGLADDER_DATA is not set: the real data sets are not at hand")
@pytest.mark.parametrize(
    ("name", "n_items", "n_labelled", "n_classes"),
    [
        ("movies", 9742, 6049, (14, 46, 176)),
        ("products", 10_012, 10_012, (37, 76, 282)),  # one level-3 label stands under two parents
        ("articles", 5000, 5000, (9, 70, 219)),
    ],
)
def test_real_catalogs_are_cleaned_whole(tmp_path, name, n_items, n_labelled, n_classes):
    files = {
        key: str(Path(DATA).resolve() / value)
        for key, value in REAL[name].items()
        if key in ("items", "tags", "labels")
    }
    catalog = {**REAL[name], **files, "levels": "one, two, three"}
    found = clean_files(tmp_path, catalog=catalog, clean_settings={"max_reject_share": 0.001, "unescape_url": True})
    assert found.statistics["n_items"] == n_items
    assert found.statistics["labels"]["one"]["known"] == n_labelled
    assert Taxonomy.from_json((found.folder / "taxonomy.json").read_text()).n_classes == n_classes
