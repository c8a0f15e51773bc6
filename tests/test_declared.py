"""A declared taxonomy, and the check of columns before any work."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_catalog import GOOD, HEADER, clean_csv, clean_files

from pipeline.errors import CatalogError
from pipeline.taxonomy import Taxonomy

TREE = "parent,child\n,Horror\n,Comedy\nHorror,Zombies\nHorror,Ghosts\nComedy,City\nComedy,Ghosts\n"


def declare(folder, text, items=f"{HEADER}\n{GOOD}"):
    (folder / "ladder.csv").write_text(text)
    return clean_csv(folder, items, catalog={"taxonomy": "ladder.csv"})


def test_parents_and_children_are_a_ladder_and_a_name_may_stand_twice(tmp_path):
    found = declare(tmp_path, TREE)
    taxonomy = Taxonomy.from_json((found.folder / "taxonomy.json").read_text())
    expected = (("Comedy", "City"), ("Comedy", "Ghosts"), ("Horror", "Ghosts"), ("Horror", "Zombies"))
    assert taxonomy.classes == ((("Comedy",), ("Horror",)), expected)


def test_tops_need_no_row_of_their_own(tmp_path):
    tree = "parent,child\nHorror,Zombies\nComedy,City\n"
    taxonomy = Taxonomy.from_json((declare(tmp_path, tree).folder / "taxonomy.json").read_text())
    assert taxonomy.classes[0] == (("Comedy",), ("Horror",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TREE + "Zombies,Horror\n", r"in a circle: (Horror > Zombies > Horror|Zombies > Horror > Zombies)"),
        ("parent,child\na,b\nb,c\nc,a\n", "in a circle: a > b > c > a"),
        ("parent,child\n,a\nb,b\n", "in a circle: b > b"),
        (TREE + "Drama,War\n", r"1 parents are declared nowhere: 'War' \(line 8\) below 'Drama'"),
        (TREE + "Zombies,Slow\n", "Horror > Zombies > Slow is deeper than the 2 levels"),
        (TREE + "Horror,\n", "line 8: column 'child' is empty"),
        ("genre,theme\nHorror,Zombies\n,City\n", r"line 3: level-2 label \(theme\) without.*1 such rows: line 3"),
        ("genre,colour\nHorror,red\n", "no column 'theme'"),
    ],
)
def test_circles_orphans_and_what_is_too_deep_are_named(tmp_path, text, message):
    with pytest.raises(CatalogError, match=message):
        declare(tmp_path, text)


def test_a_chain_of_100_000_is_told_and_no_crash(tmp_path):
    rows = "".join(f"n{k},n{k + 1}\n" for k in range(100_000))
    with pytest.raises(CatalogError, match="deeper than the 2 levels"):
        declare(tmp_path, f"parent,child\n{rows}")


def test_labels_that_the_taxonomy_does_not_have_are_named_and_counted(tmp_path):
    items = f"{HEADER}\n{GOOD}4,a,x,Drama,War\n5,b,x,Drama,War\n6,c,x,Horror,City\n"
    found = declare(tmp_path, TREE, items)
    assert found.statistics["labels_not_in_the_taxonomy"] == [
        {"path": ["Drama", "War"], "rows": 2},
        {"path": ["Horror", "City"], "rows": 1},
    ]
    assert [reason for _, _, reason in found.reasons][-1] == "level-2 label (theme) is not in the taxonomy"


def test_a_missing_column_of_any_file_is_told_before_a_row_is_read(tmp_path):
    (tmp_path / "items.csv").write_bytes(b'item_id,title\n1,"never closed\n' + b"x\n" * 100)
    (tmp_path / "tags.csv").write_text("item_id,tga\n1,x\n")
    (tmp_path / "labels.csv").write_text("item_id,genre,theme\n1,A,B\n")
    with pytest.raises(CatalogError, match=r"tags.csv: there is no column 'tag'; did you mean 'tga'"):
        clean_files(tmp_path, catalog={"tags": "tags.csv", "tags_column": "tag", "labels": "labels.csv"})


def test_a_type_that_is_no_text_is_told_with_file_and_column(tmp_path):
    table = pa.table({"item_id": [1], "title": [{"en": "a"}], "tags": [["x"]], "genre": ["A"], "theme": ["B"]})
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(CatalogError, match=r"items.parquet: the column 'title' is struct<en: string>; text is needed"):
        clean_files(tmp_path, catalog={"items": "items.parquet"})


def test_a_text_that_is_empty_everywhere_is_told_with_rows(tmp_path):
    with pytest.raises(CatalogError, match=r"items.csv: the column 'plot' is empty in all 3 rows \(lines 2, 3, 4"):
        clean_csv(
            tmp_path,
            f"{HEADER},plot\n" + GOOD.replace("\n", ",\n"),
            catalog={"text": "plot"},
        )


def test_ids_that_repeat_too_often_stop_the_run_with_examples(tmp_path):
    rows = "".join(f"{n % 2},t{n},x,A,B\n" for n in range(6))
    with pytest.raises(CatalogError, match=r"4 of 6 rows.*4 x duplicate item_id \(.*items.csv line 4: .*t2.*line 5"):
        clean_csv(tmp_path, f"{HEADER}\n{rows}", clean_settings={"max_reject_share": 0.1})
