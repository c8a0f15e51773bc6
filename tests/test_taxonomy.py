"""The ladder: classes by full path, stops, legal paths, and what a declared file may say."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CatalogError
from pipeline.labels import check_labels
from pipeline.taxonomy import Taxonomy

LEVELS = ("genre", "theme")
PATHS = [("Horror", "Zombies"), ("Horror", "Ghosts"), ("Comedy",), ("Drama", "War"), ("Drama", "Zombies")]
LADDER = Taxonomy.of(LEVELS, PATHS)


def columns(*rows):
    return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]


def test_the_same_name_under_two_parents_is_two_classes():
    assert LADDER.classes[1] == (
        ("Comedy", "-"),
        ("Drama", "War"),
        ("Drama", "Zombies"),
        ("Horror", "Ghosts"),
        ("Horror", "Zombies"),
    )
    assert LADDER.encode(columns(("Drama", "Zombies"), ("Horror", "Zombies"))).tolist() == [[1, 2], [2, 4]]


def test_parents_and_paths_follow_from_the_classes():
    assert LADDER.n_classes == (3, 5)
    assert [parents.tolist() for parents in LADDER.parents] == [[], [0, 1, 1, 2, 2]]
    assert LADDER.paths.tolist() == [[0, 0], [1, 1], [1, 2], [2, 3], [2, 4]]
    assert LADDER.paths.dtype == np.int32 and LADDER.parents[1].dtype == np.int32


def test_unknown_labels_are_minus_one_from_where_they_begin():
    rows = columns((None, None), ("Horror", None), ("Western", "Zombies"), ("Horror", "War"), (None, "War"))
    assert LADDER.encode(rows).tolist() == [[-1, -1], [2, -1], [-1, -1], [2, -1], [-1, -1]]
    assert LADDER.encode(rows).dtype == np.int32


def test_below_a_stop_an_empty_label_is_a_stop():
    ladder = Taxonomy.of(("a", "b", "c"), [("x", "-", "-"), ("x", "y", "z")])
    assert ladder.encode(columns(("x", "-", None), ("x", "-", "-"))).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_stop_has_no_name_and_ends_the_names_of_a_path():
    assert LADDER.name(1, 0) is None
    assert LADDER.name(1, 1) == "War"
    assert [LADDER.path_names(path) for path in (0, 1)] == [["Comedy"], ["Drama", "War"]]


def test_every_class_stands_on_a_legal_path():
    ladder = Taxonomy.of(("a", "b", "c"), [("x",), ("y", "z")])
    assert ladder.classes[2] == (("x", "-", "-"), ("y", "z", "-"))
    assert [sorted(set(ladder.paths[:, level])) for level in range(3)] == [[0, 1], [0, 1], [0, 1]]


def test_one_level_and_one_class_are_a_taxonomy():
    ladder = Taxonomy.of(("only",), [("x",)])
    assert ladder.paths.tolist() == [[0]]
    assert ladder.encode(columns(("x",), ("y",), (None,))).tolist() == [[0], [-1], [-1]]


def test_no_rows_are_encoded_as_no_rows():
    assert LADDER.encode([pa.array([], pa.string())] * 2).shape == (0, 2)


def test_it_is_learned_from_labels_in_any_order_and_from_chunks():
    rows = [("Horror", "Zombies"), ("Drama", None), (None, None), ("Drama", "-"), ("Horror", "Zombies")]
    chunked = [pa.chunked_array([column, column]) for column in columns(*reversed(rows))]
    learned = Taxonomy.learn(LEVELS, columns(*rows), "-")
    assert learned == Taxonomy.learn(LEVELS, chunked, "-")
    assert learned.classes[1] == (("Drama", "-"), ("Horror", "Zombies"))


def test_json_gives_it_back():
    assert Taxonomy.from_json(LADDER.to_json()) == LADDER
    for text in ("", "{}", "[]", '{"levels": 1, "paths": [], "stop_label": "-"}'):
        with pytest.raises(CatalogError, match="not a taxonomy"):
            Taxonomy.from_json(text)


def test_a_name_that_only_another_parent_has_is_unknown_also_behind_the_last_class():
    ladder = Taxonomy.of(LEVELS, [("Drama", "Zombies"), ("Horror", "Ghosts")])
    assert ladder.encode(columns(("Horror", "Zombies"), ("Drama", "Ghosts"))).tolist() == [[1, -1], [0, -1]]


def test_a_stop_label_of_ones_own_stops_and_a_dash_is_a_name_then():
    rows = columns(("Drama", "none"), ("Horror", "-"), ("Western", None))
    ladder = Taxonomy.learn(LEVELS, rows, "none")
    assert ladder.classes[1] == (("Drama", "none"), ("Horror", "-"), ("Western", "none"))
    assert [ladder.name(1, index) for index in range(3)] == [None, "-", None]
    assert [ladder.path_names(path) for path in range(3)] == [["Drama"], ["Horror", "-"], ["Western"]]
    assert Taxonomy.from_json(ladder.to_json()) == ladder
    three = Taxonomy.of(("a", "b", "c"), [("x", "none"), ("y", "-", "z")], stop_label="none")
    assert three.encode(columns(("x", "none", None), ("y", "-", None))).tolist() == [[0, 0, 0], [1, 1, -1]]


def test_a_path_cannot_be_too_long_or_go_on_below_a_stop():
    for path, reason in [((), "0 names"), (("a", "b", "c"), "3 names for 2 levels"), (("-", "b"), "goes on below")]:
        with pytest.raises(CatalogError, match=reason):
            Taxonomy.of(LEVELS, [path])


names = st.sampled_from(["a", "b", "c", "é", "-"])


@given(st.lists(st.tuples(st.none() | names, st.none() | names, st.none() | names), min_size=1, max_size=20))
def test_labels_that_pass_the_check_are_all_encoded_as_themselves(rows):
    levels = ("x", "y", "z")
    checked = check_labels(levels, columns(*rows), stop_label="-")
    good = checked.reasons.is_null()
    kept = [column.filter(good) for column in checked.columns]
    ladder = Taxonomy.learn(levels, kept, "-")
    codes = ladder.encode(kept)
    for row, code in zip(zip(*(column.to_pylist() for column in kept), strict=True), codes, strict=True):
        for level in range(3):
            known = row[level] is not None
            assert (code[level] >= 0) == known
            assert not known or ladder.classes[level][code[level]] == row[: level + 1]
            assert level == 0 or not known or ladder.parents[level][code[level]] == code[level - 1]


def test_a_label_below_an_unknown_one_or_below_a_stop_is_no_path():
    rows = [("a", "b", "c"), ("a", None, "c"), (None, "b", None), ("a", "-", "c"), ("a", "-", None), (" a ", "", "  ")]
    checked = check_labels(("x", "y", "z"), columns(*rows), stop_label="-")
    assert checked.reasons.to_pylist() == [
        None,
        "level-3 label (z) without a level-2 label",
        "level-2 label (y) without a level-1 label",
        "level-3 label (z) below the stop label",
        None,
        None,
    ]
    assert [column[4].as_py() for column in checked.columns] == ["a", "-", "-"]
    assert [column[5].as_py() for column in checked.columns] == ["a", None, None]


def test_a_label_that_a_declared_taxonomy_lacks_is_named():
    rows = columns(("Horror", "Zombies"), ("Horor", "Zombies"), ("Horror", "Slasher"), ("Horror", None))
    assert check_labels(LEVELS, rows, stop_label="-", taxonomy=LADDER).reasons.to_pylist() == [
        None,
        "level-1 label (genre) is not in the taxonomy",
        "level-2 label (theme) is not in the taxonomy",
        None,
    ]


def read(path):
    return Taxonomy.read(str(path), levels=LEVELS, columns=("one", "two"), stop_label="-")


def test_a_declared_file_gives_its_paths(tmp_path):
    (tmp_path / "paths.csv").write_text("note,one,two\n,Horror,Zombies\nagain,Horror,Zombies\n,Drama,\n")
    assert read(tmp_path / "paths.csv").classes[1] == (("Drama", "-"), ("Horror", "Zombies"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one,two\n,Zombies\n", "line 2: level-2 label .theme. without a level-1 label"),
        ("one,two\nHorror,Zombies\n,Ghosts\n,City\n", r"line 3: level-2 label .* \(2 such rows"),
        ("one,two\nHorror,Zombies,x\n", "line 2: 3 fields instead of 2"),
        ("one,tow\nHorror,Zombies\n", "no column 'two'; did you mean 'tow'"),
        ("one,two\n,\n", "declares no path"),
        ("", "is empty"),
    ],
)
def test_a_declared_file_that_makes_no_sense_is_an_error_with_its_place(tmp_path, text, message):
    (tmp_path / "paths.csv").write_text(text)
    with pytest.raises(CatalogError, match=message):
        read(tmp_path / "paths.csv")
