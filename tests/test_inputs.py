"""Inputs: directories, dates in paths, compressed texts."""

import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from small_catalog import GOOD, HEADER, clean_files
from small_job import DATE

from pipeline import pointers
from pipeline.config import Settings, make_settings
from pipeline.errors import SettingsError
from pipeline.identity import identify
from pipeline.inputs import expand, extensions, with_date


def compress(path: Path, text: str, kind: str) -> None:
    with pa.CompressedOutputStream(str(path), kind) as file:
        file.write(text.encode())


def test_a_directory_is_the_tables_that_lie_in_it_in_order(tmp_path):
    for name in ("b.csv.gz", "a.CSV", ".a.csv", "_SUCCESS", "_part.csv", "notes.txt", "c.jsonl.zst"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    assert [Path(path).name for path in expand(str(tmp_path))] == ["a.CSV", "b.csv.gz", "c.jsonl.zst"]


def test_a_directory_without_a_table_stays_what_is_absent(tmp_path):
    assert expand(str(tmp_path)) == (str(tmp_path),)


def test_the_catalog_of_a_directory_is_that_of_its_files(tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "1.csv").write_text(f"{HEADER}\n{GOOD}")
    compress(tmp_path / "items" / "2.csv.zst", f"{HEADER}\n4,Night,fog,Horror,Zombies\n", "zstd")
    compress(tmp_path / "items" / "3.csv.gz", f"{HEADER}\n5,Noon,sun,Comedy,City\n", "gzip")
    assert [item["item_id"] for item in clean_files(tmp_path, catalog={"items": "items"}).items] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_zst_is_read_as_what_is_in_it(tmp_path, kind):
    texts = {
        "csv": f"{HEADER}\n{GOOD}",
        "tsv": f"{HEADER}\n{GOOD}".replace(",", "\t"),
        "jsonl": '{"item_id": 1, "title": "Dawn", "tags": "Zombies;Mall", "genre": "Horror", "theme": "Zombies"}\n'
        '{"item_id": 2, "title": "M", "tags": "new york", "genre": "Comedy", "theme": "City"}\n',
    }
    compress(tmp_path / f"items.{kind}.zst", texts[kind], "zstd")
    found = clean_files(tmp_path, catalog={"items": f"items.{kind}.zst"})
    assert found.items[0]["tags"] == ["mall", "zombies"]


def test_what_is_packed_counts_in_the_kind_of_a_name(tmp_path):
    assert ["".join(extensions(name)) for name in ("a.csv.zst", "a.tsv.zst", "a.b.parquet", "a")] == [
        ".csv.zst",
        ".tsv.zst",
        ".parquet",
        "",
    ]


def test_a_date_in_a_path_is_that_of_the_run_and_counts_by_content_only(tmp_path):
    settings = make_settings(
        {"catalog": {"items": f"{tmp_path}/{{date}}/i.csv"}, "clean": {"aliases": "a-{date:%d%m%y}.txt"}}
    )
    one, other = (with_date(settings, datetime.date(2026, 11, day)) for day in (22, 23))
    assert one.catalog.items == f"{tmp_path}/2026-11-22/i.csv"
    assert other.clean.aliases == "a-231126.txt"
    prints = [identify(found, lambda path: "same bytes").fingerprints for found in (one, other)]
    assert prints[0] == prints[1]


def test_a_date_that_gives_no_name_is_refused():
    with pytest.raises(SettingsError, match="no part of a path"):
        with_date(Settings(catalog={"items": "{date:%n}.csv"}), datetime.date(2026, 11, 23))


def test_the_date_of_the_command_picks_the_file(project):
    items = project.folder / "items.csv"
    items.rename(project.folder / f"items-{DATE}.csv")
    flags = ("--catalog-items", "items-{date}.csv")
    assert "nothing to do" in project.score(*flags)
    code, _, err = project.run("ScoreCatalog", "--date", "2026-11-24", *flags)
    assert code == 20
    assert "items-2026-11-24.csv: no such file" in err
    (project.folder / "items-2026-11-24.csv").write_bytes((project.folder / f"items-{DATE}.csv").read_bytes())
    before = project.results()
    project.score(*flags, date="2026-11-24")
    assert project.stages_since(before) == []
    assert pointers.latest(project.root).date == "2026-11-24"
