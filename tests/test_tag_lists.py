"""Lists for tags: aliases, stops, names of labels, counts and users; and what of them a model carries."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_catalog import GOOD, HEADER, clean_csv, clean_files
from small_model import make_items, make_model

from pipeline.cleaning import clean_tags
from pipeline.config import make_settings
from pipeline.config_catalog import CleanSettings
from pipeline.config_results import ScoringSettings
from pipeline.digests import sha256_of
from pipeline.errors import CatalogError, SettingsError
from pipeline.model import Model, load_model
from pipeline.scoring import score_batch
from pipeline.spelling import normalise
from pipeline.tag_lists import TagLists

ITEMS = "item_id,genre,theme\n1,Horror,Zombies\n2,Comedy,City\n"


def clean_with(folder, files, text=f"{HEADER}\n{GOOD}", **settings):
    """Clean items.csv with files of lists beside it."""
    for name, content in files.items():
        (folder / name).write_text(content)
    paths = {key: str(folder / value) if value in files else value for key, value in settings.items()}
    (folder / "items.csv").write_text(text)
    expected = {str(folder / name): sha256_of(folder / name) for name in (*files, "items.csv")}
    return clean_files(folder, clean_settings=paths, expected=expected)


def test_an_alias_becomes_the_tag_at_the_end_of_its_chain(tmp_path):
    files = {"a.txt": "Mall -> shopping centre\n\nshopping-centre -> SHOPS\nbunker -> shelter\n"}
    found = clean_with(tmp_path, files, aliases="a.txt")
    assert [item["tags"] for item in found.items] == [["shops", "zombies"], ["shelter", "zombies"], ["new york"]]
    assert found.statistics["changes"]["aliases"] == 2
    lists = json.loads((found.folder / "tag_lists.json").read_text())
    assert lists["aliases"] == {"bunker": "shelter", "mall": "shops", "shopping centre": "shops"}


def test_an_alias_adds_up_with_its_tag(tmp_path):
    found = clean_with(
        tmp_path, {"a.txt": "undead -> zombies"}, f"{HEADER}\n1,D,undead;zombies,A,B\n2,D,x,C,B\n", aliases="a.txt"
    )
    assert (found.items[0]["tags"], found.items[0]["tag_counts"]) == (["zombies"], [2])
    assert found.statistics["changes"]["duplicates"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a -> b\nb -> c\nc -> a\n", "go in a circle: a -> b -> c -> a"),
        ("x -> a\na -> b\nb -> a\n", "go in a circle"),
        ("a = b\n", "a.txt line 1: 'a = b' is not of the form"),
        ("\na ->\n", "a.txt line 2"),
        ("a -> b -> c\n", "a.txt line 1"),
        ("a -> b\nA -> c\n", "line 2: 'a' stands for 'c' here and for 'b' above"),
        (f"a -> {'x' * 101}\n", "max_tag_length"),
        ("", "is empty"),
    ],
)
def test_a_file_of_aliases_that_says_nothing_clear_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(CatalogError, match=message):
        clean_with(tmp_path, {"a.txt": text}, aliases="a.txt")


def test_stops_of_setting_and_file_are_dropped_and_counted_and_no_rejects(tmp_path):
    found = clean_with(tmp_path, {"s.txt": "MALL!\n"}, stop_list="s.txt", stop_tags="new_york")
    assert [item["tags"] for item in found.items] == [["zombies"], ["bunker", "zombies"], []]
    assert found.statistics["changes"]["stop_tags"] == 2
    assert found.rejects == []


def test_a_list_is_an_input_whose_bytes_are_the_planned_ones(tmp_path):
    (tmp_path / "items.csv").write_text(f"{HEADER}\n{GOOD}")
    (tmp_path / "s.txt").write_text("mall\n")
    expected = {str(tmp_path / "items.csv"): sha256_of(tmp_path / "items.csv"), str(tmp_path / "s.txt"): "0" * 64}
    with pytest.raises(CatalogError, match="changed while the run was on"):
        clean_files(tmp_path, clean_settings={"stop_list": str(tmp_path / "s.txt")}, expected=expected)


def test_counts_and_weights_of_the_file_of_tags_add_up(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "tags.csv").write_text("item_id,tag,n\n1,fog,3\n1,Fog,2\n1,mall,0.2\n2,x,0\n2,y,many\n2,z, 1.5 \n")
    catalog = {"tags": "tags.csv", "tags_column": "tag", "tags_count": "n", "title": ""}
    found = clean_files(tmp_path, catalog=catalog)
    assert (found.items[0]["tags"], found.items[0]["tag_counts"]) == (["fog", "mall"], [5, 1])
    assert (found.items[1]["tags"], found.items[1]["tag_counts"]) == (["z"], [2])
    assert found.reasons == [("tag", 5, "n is not a number above 0"), ("tag", 6, "n is not a number above 0")]


def test_a_tag_stays_if_enough_users_gave_it_and_often_enough(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS)
    rows = ["1,fog,ann", "1,Fog,bob", "1,mall,ann", "1,mall,ann", "2,fog,ann", "2,x,", "2,x,ann"]
    (tmp_path / "tags.csv").write_text("item_id,tag,who\n" + "\n".join(rows) + "\n")
    catalog = {"tags": "tags.csv", "tags_column": "tag", "tags_user": "who", "title": ""}
    found = clean_files(tmp_path, catalog=catalog, clean_settings={"min_tag_users": 2})
    assert [item["tags"] for item in found.items] == [["fog"], ["x"]]  # a user without a name is one user
    assert found.statistics["changes"] == {"case": 1, "duplicates": 2, "min_tag_users": 3}
    often = clean_files(tmp_path, catalog=catalog, clean_settings={"min_tag_count": 2})
    assert [item["tags"] for item in often.items] == [["fog", "mall"], ["x"]]
    assert often.statistics["changes"]["min_tag_count"] == 1
    assert (often.statistics["tag_applications"], often.statistics["tag_applications_kept"]) == (7, 6)


def test_users_need_a_column():
    with pytest.raises(SettingsError, match="tags_user"):
        make_settings({"clean": {"min_tag_users": "2"}})
    with pytest.raises(SettingsError, match="tags_count"):
        make_settings({"catalog": {"tags_count": "n"}})


def test_tags_that_give_the_label_away_are_counted_and_stay_unless_dropped(tmp_path):
    text = f"{HEADER}\n1,D,horror;zombies;mall,Horror,Zombies\n2,M,zombies;fog,Comedy,City\n3,K,CITY!,Comedy,City\n"
    kept = clean_csv(tmp_path, text)
    assert kept.statistics["label_tags"] == {"on_their_own_items": 3, "items": 2}
    assert kept.items[0]["tags"] == ["horror", "mall", "zombies"]
    dropped = clean_csv(tmp_path, text, clean_settings={"drop_label_tags": True})
    assert [item["tags"] for item in dropped.items] == [["mall"], ["fog"], []]
    assert [item["tag_counts"] for item in dropped.items] == [[1], [1], []]
    assert dropped.statistics["label_tags"] == {"on_their_own_items": 3, "items": 2}
    assert dropped.statistics["changes"]["label_tags"] == 4
    lists = json.loads((dropped.folder / "tag_lists.json").read_text())
    assert lists["labels"] == ["city", "comedy", "horror", "zombies"]


def model_with(**lists):
    model = make_model()
    fields = {name: getattr(model, name) for name in ("network", "transform", "taxonomy", "calibration", "clean")}
    return Model(**fields, provenance=model.provenance, tag_lists=TagLists(**lists))


def test_the_model_file_carries_the_lists_and_predicts_by_them(tmp_path):
    model = model_with(aliases={"undead": "zombies"}, stops=frozenset({"seen"}), labels=frozenset({"war"}))
    model.save(tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    assert loaded.tag_lists == model.tag_lists
    plain, listed = loaded.predict([["Zombies"], ["Undead", "seen", "War"]])
    assert plain == listed
    assert listed.n_tags == 1


def test_another_catalog_is_scored_without_the_names_of_labels(tmp_path):
    items, scoring = make_items(20), ScoringSettings()
    with_war = score_batch(model_with(labels=frozenset({"war"})), items, clean=False, scoring=scoring)
    given = list(zip(items["tags"].to_pylist(), items["tag_counts"].to_pylist(), strict=True))
    without = [[(tag, n) for tag, n in zip(tags, counts, strict=True) if tag != "war"] for tags, counts in given]
    tags = pa.array([[tag for tag, _ in pairs] for pairs in without], pa.list_(pa.string()))
    counts = pa.array([[n for _, n in pairs] for pairs in without], pa.list_(pa.int32()))
    columns = {name: items[name] for name in items.schema.names}
    bare = pa.RecordBatch.from_pydict(columns | {"tags": tags, "tag_counts": counts})
    assert any("war" in tags for tags in items["tags"].to_pylist())
    assert with_war.equals(score_batch(make_model(), bare, clean=False, scoring=scoring))


@pytest.mark.parametrize("content", [[], {}, {"aliases": {}, "stops": 1, "labels": []}, {"aliases": {"a": 1}}])
def test_other_json_is_no_list(content):
    with pytest.raises(CatalogError, match="not lists of tags"):
        TagLists.from_json(content)


REPAIRING = CleanSettings(fix_mojibake=True)


def test_mojibake_is_repaired_by_setting(tmp_path):
    assert normalise("CafÃ©", REPAIRING) == "café"
    assert normalise("CafÃ©", CleanSettings()) == "cafã©"
    found = clean_csv(tmp_path, f"{HEADER}\n1,D,cafÃ©;Mall,A,B\n2,D,x,C,B\n", clean_settings={"fix_mojibake": True})
    assert found.items[0]["tags"] == ["café", "mall"]
    assert found.statistics["changes"] == {"case": 1, "unescaped_cells": 1}


@given(st.lists(st.text(st.sampled_from("aÃ©â\u201a¬™ï»¿&;é \u0099"), max_size=10), max_size=4))
def test_repaired_tags_are_clean_already(tags):
    found = clean_tags(pa.array([tags], pa.list_(pa.string())), REPAIRING).tags
    assert clean_tags(found, REPAIRING).tags.equals(found)


def test_repair_without_ftfy_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['ftfy'] = None\n"
        "import pyarrow as pa\n"
        "from pipeline.cleaning import clean_tags\n"
        "from pipeline.config_catalog import CleanSettings\n"
        "print(clean_tags(pa.array([['A']]), CleanSettings()).tags.to_pylist())\n"
        "clean_tags(pa.array([['A']]), CleanSettings(fix_mojibake=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[['a']]\n"
    assert "SettingsError: [clean] fix_mojibake = true: the package ftfy is not installed; pip install" in done.stderr


def test_nfkc_can_be_left_alone():
    assert normalise("ﬁlm", CleanSettings(unicode_nfkc=False, lowercase=False)) == "ﬁlm"


def test_every_change_is_counted_by_its_rule(tmp_path):
    text = f"{HEADER}\n1,D,A&amp;B;  x   y ;ﬁlm;film;sci-fi;a\u200bb,A,B\n2,D,plain,C,B\n"
    found = clean_csv(tmp_path, text)
    assert found.statistics["changes"] == {
        "case": 1,  # A&B; its escape was undone in the cell, before the semicolons part it
        "control_characters": 1,
        "duplicates": 1,
        "punctuation": 1,
        "unescaped_cells": 1,
        "unicode": 1,
        "whitespace": 1,
    }
    assert found.statistics["distinct_raw_tags_changed_by"]["unicode"] == 1


def test_the_share_of_unseen_tags_is_that_of_held_out_items(tmp_path):
    rows = ["1,a;b,A,train", "2,a,B,train", "3,a;c,A,validation", "4,d;b,B,test"]
    (tmp_path / "items.csv").write_text("item_id,tags,genre,split\n" + "\n".join(rows) + "\n")
    found = clean_files(tmp_path, catalog={"levels": "genre", "title": "", "split": "split"})
    assert found.statistics["share_unseen"] == 0.5  # of a, c, d, b training lacks c and d
