"""Stage 2 whole: from items.parquet to shards, and back for training."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_folders import read

from pipeline import partition
from pipeline.config import Settings
from pipeline.errors import CatalogError, FeatureError
from pipeline.features import FeatureTransform, build
from pipeline.parts import open_parts
from pipeline.shards import read_item_ids
from pipeline.taxonomy import Taxonomy

LEVELS = ("genre", "theme")
TAGS = ["alien", "deep space", "robots", "space", "zombies"]
N_ITEMS = 40


def row(number: int) -> dict:
    """Item 0 has no label, 1 none on the second level; every fifth is for validation, every seventh for test."""
    split = "test" if number % 7 == 3 else "validation" if number % 5 == 2 else "train"
    return {
        "item_id": number,
        "tags": TAGS[number % 5 : number % 5 + 1 + number % 3],
        "tag_counts": [1] * len(TAGS[number % 5 : number % 5 + 1 + number % 3]),
        "tag_order": list(range(len(TAGS[number % 5 : number % 5 + 1 + number % 3]))),
        "split": split,
        "genre": None if number == 0 else "Horror" if number % 2 else "Science fiction",
        "theme": None if number < 2 else "Zombies" if number % 2 else "Space",
    }


def write_clean(folder, rows: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    numbers = pa.list_(pa.int32())
    lists = [("tags", pa.list_(pa.string())), ("tag_counts", numbers), ("tag_order", numbers)]
    id_type = pa.string() if rows and isinstance(rows[0]["item_id"], str) else pa.int64()
    strings = [(name, pa.string()) for name in ("split", *LEVELS)]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("item_id", id_type), *lists, *strings]))
    pq.write_table(table, folder / "items.parquet")
    taxonomy = Taxonomy.learn(LEVELS, [table[level] for level in LEVELS], "-")
    (folder / "taxonomy.json").write_text(taxonomy.to_json())


def built(tmp_path, name: str, rows: list[dict], **features):
    write_clean(tmp_path / f"{name}-clean", rows)
    folder = tmp_path / name
    folder.mkdir()
    settings = Settings(catalog={"levels": LEVELS}, features={"hash_width": 64, **features})
    build(settings, tmp_path / f"{name}-clean", folder)
    return folder


@pytest.fixture
def rows():
    return [row(number) for number in range(N_ITEMS)]


def test_the_folder_holds_vocabulary_transform_and_shards_and_nothing_else(tmp_path, rows):
    folder = built(tmp_path, "features", rows, shard_items=15)
    shards = ["features-00000.h5", "features-00001.h5", "features-00002.h5"]
    assert sorted(path.name for path in folder.iterdir()) == [*shards, "transform.h5", "vocabulary.parquet"]
    assert pq.read_schema(folder / "vocabulary.parquet").names == ["tag", "id", "document_frequency"]


def test_a_shard_holds_the_arrays_of_the_contract(tmp_path, rows):
    folder = built(tmp_path, "features", rows)
    with h5py.File(folder / "transform.h5") as file:
        transform = FeatureTransform.load(file["transform"])
    with h5py.File(folder / "features-00000.h5") as file:
        assert sorted(file) == ["dense", "features", "item_id", "labels", "split", "tag_index"]
        assert sorted(file["features"]) == ["data", "indices", "indptr", "shape"]
        types = {name: file[name].dtype.name for name in ("tag_index", "dense", "labels", "split", "item_id")}
        widths = {name: int(file.attrs[name]) for name in ("n_vocabulary", "n_features", "n_dense")}
        assert file["dense"].shape == (N_ITEMS - 1, 0)
        assert file["features/shape"][:].tolist() == [N_ITEMS - 1, transform.n_features]
    assert types == {"tag_index": "int32", "dense": "float32", "labels": "int32", "split": "uint8", "item_id": "int64"}
    assert widths == {"n_vocabulary": 6, "n_features": transform.n_features, "n_dense": 0}


def test_only_labelled_items_are_read_back_each_in_its_split(tmp_path, rows):
    data = read(built(tmp_path, "features", rows, shard_items=7))
    labelled = rows[1:]
    for part, name in ((data.train, "train"), (data.validation, "validation"), (data.test, "test")):
        assert len(part) == sum(row["split"] == name for row in labelled)
        assert part.features.format == "csr" and part.features.dtype == np.float32
        assert part.tag_index.shape[0] == part.features.shape[0] == part.dense.shape[0] == len(part)
    labels = np.concatenate([part.labels for part in (data.train, data.validation, data.test)])
    assert (labels[:, 0] >= 0).all()
    assert (labels[:, 1] < 0).sum() == 1


def test_features_and_labels_of_an_item_stay_together(tmp_path, rows):
    folder = built(tmp_path, "features", rows, shard_items=11)
    data = read(folder)
    parts = (data.train, data.validation, data.test)
    ids = [number for shard in read_item_ids(folder) for number in shard.to_pylist()]
    labels = np.concatenate([part.labels for part in parts]).tolist()
    known = pq.read_table(folder / "vocabulary.parquet")["tag"].to_pylist()
    index = [line for part in parts for line in part.tag_index.tolist()]
    for number, label, line in zip(ids, labels, index, strict=True):
        assert {known[i - 1] for i in line if i} == set(rows[number]["tags"])
        assert label == [1 - number % 2, -1 if number < 2 else 1 - number % 2]


def test_neither_the_order_of_rows_nor_the_size_of_shards_nor_of_batches_changes_what_is_read(
    tmp_path, rows, monkeypatch
):
    first = read(built(tmp_path, "first", rows))
    monkeypatch.setattr(partition, "BATCH_ROWS", 6)
    second = read(built(tmp_path, "second", rows[::-1], shard_items=9))
    assert first.widths == second.widths
    for name in ("train", "validation", "test"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one.tag_index == other.tag_index).all()
        assert (one.labels == other.labels).all()
        assert (one.features != other.features).nnz == 0


def test_items_that_are_not_for_training_change_no_feature(tmp_path, rows):
    first = built(tmp_path, "first", rows)
    changed = [
        row if row["split"] == "train" else row | {"tags": ["other"], "tag_counts": [9], "tag_order": [0]}
        for row in rows
    ]
    unlabelled = {
        "item_id": 99,
        "tags": ["alone"],
        "tag_counts": [1],
        "tag_order": [0],
        "split": "train",
        "genre": None,
        "theme": None,
    }
    second = built(tmp_path, "second", [*changed, unlabelled])
    for name in ("transform.h5", "vocabulary.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_same_input_gives_the_same_bytes(tmp_path, rows):
    first, second = built(tmp_path, "first", rows), built(tmp_path, "second", rows)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_ids_may_be_strings(tmp_path, rows):
    numbers = built(tmp_path, "numbers", rows)
    strings = built(tmp_path, "strings", [row | {"item_id": str(row["item_id"])} for row in rows])
    found = [number for shard in read_item_ids(strings) for number in shard.to_pylist()]
    # 7 and "7" have the same place.
    assert found == [str(number) for shard in read_item_ids(numbers) for number in shard.to_pylist()]


def test_a_part_without_items_is_empty(tmp_path, rows):
    data = read(built(tmp_path, "features", [row | {"split": "train"} for row in rows]))
    assert (len(data.train), len(data.validation), len(data.test)) == (N_ITEMS - 1, 0, 0)
    assert data.validation.features.shape == (0, data.widths.n_features)


def test_one_item_is_enough(tmp_path, rows):
    data = read(built(tmp_path, "features", [rows[4]]))
    assert data.train.labels.tolist() == [[0, 0]]


@pytest.mark.parametrize("change", [{"genre": None, "theme": None}, {"split": "test"}])
def test_a_catalog_without_a_labelled_training_item_is_refused(tmp_path, rows, change):
    with pytest.raises(CatalogError, match="none of them is for training; give more items a top label"):
        built(tmp_path, "features", [row | change for row in rows])


def test_an_empty_catalog_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="of 0 items, 0 are labelled"):
        built(tmp_path, "features", [])


def test_a_split_of_another_name_is_refused(tmp_path, rows):
    with pytest.raises(CatalogError, match="split 'dev' is not one of train, validation, test"):
        built(tmp_path, "features", [*rows, row(50) | {"split": "dev"}])


def test_a_missing_column_is_named(tmp_path, rows):
    write_clean(tmp_path, rows)
    settings = Settings(catalog={"levels": LEVELS, "text": ("plot",)})
    with pytest.raises(CatalogError, match=r"column 'text.plot' is missing"):
        build(settings, tmp_path, tmp_path)


def test_an_empty_folder_has_nothing_to_read(tmp_path):
    with pytest.raises(FeatureError, match=r"there is no features-00000.h5"):
        open_parts(tmp_path)


def spoil(name, value):
    def change(file):
        file[name][...] = value

    return change


def bomb(file):
    del file["features/data"]
    file["features"].create_dataset("data", shape=(2**40,), dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("tag_index", 6), "tag_index runs from 6 to 6; ids are 0 to 5"),
        (spoil("features/indices", N_ITEMS), "features/indices run from 40 to 40"),
        (spoil("features/indptr", 1), "features/indptr does not fit"),
        (spoil("features/data", 2), "features/data run from 2.0"),
        (spoil("features/shape", 3), r"has shape \(3, 3\)"),
        (spoil("labels", -2), "a label below -1"),
        (spoil("split", 7), "an unknown split"),
        (bomb, "declares 4398046511104 bytes and stores 0"),
        (lambda file: file.attrs.__delitem__("n_dense"), "attribute 'n_dense' is missing"),
        (lambda file: file.attrs.__setitem__("n_features", 7), "not .*7"),
        (lambda file: file.__delitem__("labels"), "labels is not an array of this file"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path, rows, change, message):
    folder = built(tmp_path, "features", rows)
    with h5py.File(folder / "features-00000.h5", "r+") as file:
        change(file)
    with pytest.raises(FeatureError, match=message):
        read(folder)


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    (tmp_path / "features-00000.h5").write_text(json.dumps({}))
    with pytest.raises(FeatureError, match="is not an HDF5 file"):
        read(tmp_path)


def test_shards_that_do_not_fit_each_other_are_refused(tmp_path, rows):
    folder = built(tmp_path, "features", rows, shard_items=20)
    other = built(tmp_path, "other", rows, shard_items=20, hash_width=128)
    (folder / "features-00001.h5").write_bytes((other / "features-00001.h5").read_bytes())
    with pytest.raises(FeatureError, match="the shards before it"):
        open_parts(folder)
