"""Changes since the last published run: by hand, out of memory, and what a night leaves and says."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_job import DATE, write_items

from pipeline import artifacts, pointers
from pipeline.changes import COUNTS, FILE, list_changes
from pipeline.errors import ArtifactError

HORROR, WAR = ["Horror", "Zombies"], ["War"]
BEFORE = [(1, "Dawn", HORROR, 0.9), (2, "Day", HORROR, 0.8), (3, "Night", WAR, 0.7), (5, "Dusk", [], 0.1)]


def published(folder: Path, rows, *, id_type=None, part_rows: int = 2) -> Path:
    """Publish scores with the columns that count, in parts."""
    item_id, title, path, probability = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    labels = ["Horror", "Zombies", "War"]
    lists = pa.array(path, pa.list_(pa.string()))
    codes = pa.DictionaryArray.from_arrays(
        pa.array([labels.index(name) for names in path for name in names], pa.int32()), pa.array(labels)
    )
    table = pa.table(
        {
            "item_id": pa.array(item_id, id_type or pa.int64()),
            "title": pa.array(title, pa.string()),
            "path": pa.ListArray.from_arrays(lists.offsets, codes),
            "path_probability": pa.array(probability, pa.float32()),
        }
    )

    def write(target: Path) -> None:
        (target / "scores.parquet").mkdir()
        for number, start in enumerate(range(0, max(1, len(rows)), part_rows)):
            pq.write_table(table.slice(start, part_rows), target / "scores.parquet" / f"part-{number:05}.parquet")
        (target / "summary.json").write_text(json.dumps({"n_items": len(rows)}))

    artifacts.publish(folder, write, work=folder.with_name(f"{folder.name}-work"), facts={})
    return folder


def changes(tmp_path: Path, now, before=BEFORE, *, ids_now=None):
    """Return rows of changes.parquet, and changes.json."""
    folder = tmp_path / "changes"
    folder.mkdir()
    runs = published(tmp_path / "now", now, id_type=ids_now), published(tmp_path / "before", before)
    list_changes(*runs, folder, since=DATE)
    assert sorted(path.name for path in folder.iterdir()) == [COUNTS, FILE]
    return pq.read_table(folder / FILE).to_pylist(), json.loads((folder / COUNTS).read_text())


def row(item_id, title, change, before=None, before_probability=None, path=None, probability=None):
    return {
        "item_id": item_id,
        "title": title,
        "change": change,
        "path_before": before,
        "path_probability_before": before_probability
        if before_probability is None
        else pytest.approx(before_probability),
        "path": path,
        "path_probability": probability if probability is None else pytest.approx(probability),
    }


def test_items_are_new_gone_or_have_another_path(tmp_path):
    now = [(4, "Fog", WAR, 0.6), (3, "Night", HORROR, 0.5), (1, "Dawn", HORROR, 0.2), (5, "Dusk", ["War"], 0.3)]
    found, counts = changes(tmp_path, now)
    assert found == [
        row(2, "Day", "gone", HORROR, 0.8),
        row(3, "Night", "path", WAR, 0.7, HORROR, 0.5),
        row(4, "Fog", "new", None, None, WAR, 0.6),
        row(5, "Dusk", "path", [], 0.1, WAR, 0.3),
    ]
    facts = {"run": "now", "since": "before", "since_date": DATE}
    assert counts == {**facts, "n_items": 4, "new": 1, "gone": 1, "path": 2}


def test_without_a_change_there_are_no_rows(tmp_path):
    found, counts = changes(tmp_path, BEFORE)
    assert found == []
    assert (counts["new"], counts["gone"], counts["path"]) == (0, 0, 0)


def test_the_order_of_labels_counts_and_their_sum_does_not(tmp_path):
    found, _ = changes(tmp_path, [(1, "Dawn", ["Zombies", "Horror"], 0.9)], [(1, "Dawn", HORROR, 0.9)])
    assert [each["change"] for each in found] == ["path"]


def test_ids_that_became_text_are_compared_as_text(tmp_path):
    now = [("1", "Dawn", HORROR, 0.9), ("x7", "Mist", WAR, 0.5)]
    found, counts = changes(tmp_path, now, BEFORE[:1], ids_now=pa.string())
    assert found == [row("x7", "Mist", "new", None, None, WAR, 0.5)]
    assert counts["path"] == 0


def test_an_empty_run_has_lost_everything(tmp_path):
    found, counts = changes(tmp_path, [])
    assert [each["change"] for each in found] == ["gone"] * 4
    assert (counts["n_items"], counts["gone"]) == (0, 4)


def test_the_same_runs_give_the_same_bytes_whatever_the_order_and_the_parts(tmp_path):
    n = 30_000
    before = [(k, f"film {k}", HORROR if k % 3 else WAR, 0.5) for k in range(n)]
    now = [(k, f"film {k}", HORROR if k % 2 else WAR, 0.5) for k in range(100, n + 100)]
    for name, rows, part_rows in (("one", now, 10_000), ("other", now[::-1], 7_000)):
        (tmp_path / name).mkdir()
        folder = published(tmp_path / name / "now", rows, part_rows=part_rows)
        list_changes(folder, published(tmp_path / name / "before", before, part_rows=n), tmp_path / name, since=None)
    one, other = ((tmp_path / name / FILE).read_bytes() for name in ("one", "other"))
    assert one == other
    # 0 to 99 are gone, 100 are new; of the others those divisible by 2 or by 3, but not by both, have moved.
    both = range(100, n)
    moved = sum((k % 2 == 0) != (k % 3 == 0) for k in both)
    assert pq.read_metadata(tmp_path / "one" / FILE).num_rows == 200 + moved


def test_a_damaged_run_is_named(tmp_path):
    runs = published(tmp_path / "now", BEFORE), published(tmp_path / "before", BEFORE)
    part = tmp_path / "before" / "scores.parquet" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"part-00000\.parquet: has changed since it was published"):
        list_changes(*runs, tmp_path, since=None)


# --- the luigi command


def test_a_night_lists_what_changed_since_the_last_and_says_so(project):
    first = pointers.latest(project.root)
    assert first.changes is None
    before = project.results()
    write_items(project.folder / "items.csv", n=33)  # three more, and the one without labels has another number
    out = project.score("--training-refresh", "pinned", date="2026-11-24")
    assert project.stages_since(before) == ["clean", "score"]
    latest = pointers.latest(project.root)
    told = json.loads((artifacts.verify(project.root / latest.changes) / COUNTS).read_text())
    assert (told["since"], told["since_date"], told["n_items"], told["new"], told["gone"]) == (
        first.run,
        DATE,
        34,
        3,
        0,
    )
    assert f"changes        34 items: 3 new, 0 gone, {told['path']} with another path, since {DATE}" in out
    assert f"artifacts/{latest.changes}/changes.parquet" in out
    rows = pq.read_table(project.root / latest.changes / FILE).to_pylist()
    assert [row["item_id"] for row in rows if row["change"] == "new"] == [31, 32, 33]
    assert "nothing to do" in project.score("--training-refresh", "pinned", date="2026-11-24")


def test_the_same_run_of_another_date_has_no_changes(project):
    assert "\nchanges " not in project.score(date="2026-11-24")
    assert pointers.latest(project.root).changes is None


def test_without_the_last_run_the_night_is_published_all_the_same(project):
    shutil.rmtree(project.root / pointers.latest(project.root).folder / "scores.parquet")
    code, _, err = project.run("ScoreCatalog", "--date", "2026-11-24", "--scoring-n-best", "1")
    assert code == 0
    assert "changes: not listed: " in err
    assert pointers.latest(project.root).date == "2026-11-24"


def test_changes_that_are_damaged_are_listed_anew_by_the_next_run_of_their_date(project):
    write_items(project.folder / "items.csv", n=33)
    flags = ("--training-refresh", "pinned", "--scoring-n-best", "1")
    project.score(*flags, date="2026-11-24")
    pointer = pointers.latest(project.root)
    listed = (project.root / pointer.changes / FILE).read_bytes()
    (project.root / pointer.changes / FILE).write_bytes(listed[:-1])
    before = project.results()
    project.score(*flags, date="2026-11-24")
    assert (project.stages_since(before), pointers.latest(project.root)) == ([], pointer)
    assert (artifacts.verify(project.root / pointer.changes) / FILE).read_bytes() == listed
    assert "nothing to do" in project.score(*flags, date="2026-11-24")


def test_changes_that_cannot_be_listed_again_are_named_no_more(project):
    write_items(project.folder / "items.csv", n=33)
    flags = ("--training-refresh", "pinned", "--scoring-n-best", "1")
    first = pointers.latest(project.root)
    project.score(*flags, date="2026-11-24")
    for folder in (pointers.latest(project.root).changes, first.folder):
        shutil.rmtree(project.root / folder)
    code, _, err = project.run("ScoreCatalog", "--date", "2026-11-24", *flags)
    assert code == 0
    assert "changes: not listed: " in err
    assert pointers.latest(project.root).changes is None
    assert "nothing to do" in project.score(*flags, date="2026-11-24")


def test_a_disk_that_refuses_the_changes_ends_the_run_and_the_next_one_goes_on(project):
    (project.root / "changes").write_text("no directory")
    flags = ("ScoreCatalog", "--date", "2026-11-24", "--scoring-n-best", "1")
    code, _, err = project.run(*flags)
    assert code == 30
    assert re.search(r"ScoreCatalog: artifacts/changes/\w+: cannot be published .*; free space", err)
    assert pointers.latest(project.root).date == DATE
    (project.root / "changes").unlink()
    code, out, _ = project.run(*flags)
    assert code == 0 and "\nchanges " in out
