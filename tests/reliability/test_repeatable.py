"""Suite 8: the same bytes wherever and whenever, and the same results of the same items in any order and parts."""

import random

import pyarrow.parquet as pq
import pytest
from nights import LONGER, NEXT_DATE, Night, rounds
from small_job import Project, write_items

SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Kathmandu"},
    {"PYTHONHASHSEED": "2", "LC_ALL": "tr_TR.UTF-8", "TZ": "UTC"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "C.UTF-8", "TZ": "America/St_Johns"},
    {"PYTHONHASHSEED": "4", "LANG": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati"},
    {"PYTHONHASHSEED": "4294967295", "LC_ALL": "POSIX", "TZ": "Etc/GMT+12"},
)


@rounds(1, 5)
def test_fresh_processes_in_other_surroundings_make_the_same_bytes(tonight, tmp_path, figure, n):
    expected = tonight.undisturbed.content()
    wanted = {path: digest for path, digest in expected.items() if path.startswith(("export/", "score/"))}
    wanted = {path: digest for path, digest in wanted.items() if path not in tonight.yesterday.content()}
    assert sum(path.endswith(("model.h5", "scores.h5", ".parquet")) for path in wanted) == 4
    for at, environment in enumerate(SURROUNDINGS[:n]):
        project = Project(tmp_path / f"ein anderer Ort {at}", environment)
        project.folder.mkdir()
        for name in ("items.csv", "luigi.cfg"):
            (project.folder / name).write_bytes((tonight.undisturbed.folder / name).read_bytes())
        project.score(date=NEXT_DATE)
        content = Night(project.folder).content()
        assert wanted.items() <= content.items()
    figure(f"8 surroundings: {n} fresh processes of other hash seed, locale, time zone and directory: {n} equal")


def results(night: Night) -> tuple[bytes, dict]:
    """Return the parameters, and the scores of each item without the name of the model."""
    (parameters,) = night.root.glob("train/*/parameters.h5")
    scores = pq.read_table(night.root / "published" / "latest" / "scores.parquet").drop_columns("model").to_pylist()
    return parameters.read_bytes(), {row["item_id"]: row for row in scores}


def new_night(folder, n_items: int) -> Night:
    night = Night(folder)
    night.folder.mkdir()
    write_items(night.folder / "items.csv", n=n_items)
    (night.folder / "luigi.cfg").write_text(LONGER)
    return night


@pytest.fixture(scope="module")
def in_order(server, tmp_path_factory) -> tuple[bytes, dict]:
    night = new_night(tmp_path_factory.mktemp("in_order") / "night", 128)
    night.succeeds("ScoreCatalog", "--date", NEXT_DATE, "--features-shard-items", "1000")
    assert len(list(night.root.glob("features/*/features-*.h5"))) == 1
    return results(night)


@rounds(1, 6)
def test_rows_and_files_in_another_order_give_the_same_model_and_scores(in_order, tmp_path, figure, n):
    for at in range(n):
        night = new_night(tmp_path / str(at), 128)
        header, *rows = (night.folder / "items.csv").read_text().splitlines()
        random.Random(at).shuffle(rows)
        for part in range(3):
            (night.folder / f"part-{2 - part}.csv").write_text("\n".join([header, *rows[part::3]]) + "\n")
        night.succeeds("ScoreCatalog", "--date", NEXT_DATE, "--catalog-items", "part-*.csv")
        assert results(night) == in_order
    figure(f"8 order: rows shuffled over three files, {n} times: same parameters, same scores of each item")


@pytest.mark.parametrize(("shard_items", "n_shards"), [(20, 7), pytest.param(2, 64, marks=pytest.mark.reliability)])
def test_shards_change_nothing(in_order, tmp_path, figure, shard_items, n_shards):
    night = new_night(tmp_path / "night", 128)
    night.succeeds("ScoreCatalog", "--date", NEXT_DATE, "--features-shard-items", str(shard_items))
    assert len(list(night.root.glob("features/*/features-*.h5"))) == n_shards
    assert results(night) == in_order
    figure(f"8 shards: {n_shards} instead of one: same parameters, same scores")
