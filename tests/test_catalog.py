"""A catalog becomes shards in one pass: the same features as batch by batch, from clean tags or raw ones."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_folders import read

from pipeline.catalog import CodedBags, TagCodes, write_catalog
from pipeline.cleaning import clean_tags
from pipeline.config import Settings
from pipeline.errors import FeatureError
from pipeline.features import FeatureTransform
from pipeline.partition import Order
from pipeline.tagging import TagRules

RAW = [["Zombies", "sci-fi", "Sci Fi "], [], None, ["...", "space"], ["zombies", None, "Space", "robots", "space"]]
CHOSEN = Settings(features={"blocks": "tags, tag_words, tag_chars", "hash_width": 64, "shard_items": 2})


def batches(rows, *, size=2):
    ids = pa.array(range(len(rows)), pa.int64())
    return pa.table({"item_id": ids, "tags": pa.array(rows, pa.list_(pa.string()))}).to_batches(max_chunksize=size)


def written(folder, rows, **options):
    folder.mkdir(exist_ok=True)
    order = Order.as_given(len(rows))
    return write_catalog(batches(rows), CHOSEN, folder, order=order, n_classes=(1,), **options)


def test_raw_tags_are_cleaned_on_the_way(tmp_path):
    transform = written(tmp_path, RAW, rules=TagRules(CHOSEN.clean))
    clean = clean_tags(pa.array(RAW, pa.list_(pa.string())), CHOSEN.clean).tags
    assert transform.vocabulary.terms.to_pylist() == ["space", "zombies", "robots", "sci fi"]
    data = read(tmp_path).train
    counts = pa.array([[2, 1], [], [], [1], [1, 2, 1]], pa.list_(pa.int32()))
    again = FeatureTransform.fit(pa.table({"tags": clean, "tag_counts": counts}), CHOSEN)
    expected = again.transform(pa.table({"tags": clean, "tag_counts": counts}))
    assert data.tag_index.tolist() == expected.tag_index.tolist()
    assert data.features.toarray().tolist() == expected.features.toarray().tolist()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.lists(st.text("abé ", min_size=1, max_size=4), max_size=5, unique=True), min_size=1, max_size=9)
)
def test_codes_give_the_features_that_strings_give(rows):
    table = pa.table({"tags": pa.array(rows, pa.list_(pa.string()))})
    transform = FeatureTransform.fit(table, CHOSEN)
    codes = TagCodes()
    for batch in table.to_batches(max_chunksize=2):
        bags = CodedBags(codes.coded(batch), codes, {})
        found, wanted = transform.transform_bags(bags), transform.transform(batch)
        assert found.tag_index.tolist() == wanted.tag_index.tolist()
        assert found.features.toarray().tolist() == wanted.features.toarray().tolist()
        assert found.n_unseen_tags.tolist() == wanted.n_unseen_tags.tolist()


def test_a_tag_keeps_its_code_and_the_rules_see_it_once():
    seen = []

    def rules(raw):
        seen.append(raw)
        return raw.lower(), ""

    codes = TagCodes(rules)
    found = [codes.coded(batch)["tags"].to_pylist() for batch in batches([["B", "a"], ["b"], ["a", "c", "B"]], size=1)]
    assert found == [[[0, 1]], [[0]], [[0, 1, 2]]]
    assert codes.terms.to_pylist() == ["b", "a", "c"]
    assert seen == ["B", "a", "b", "c"]


def test_the_first_tags_stay_in_raw_order(tmp_path):
    chosen = Settings(features={"blocks": "tags", "max_tags": 2, "keep_tags": "first"})
    rows = [["Zed", "...", "b", "A", "zed"], ["a", "b"], ["a"]]
    order = Order.as_given(3)
    rules = TagRules(chosen.clean)
    transform = write_catalog(batches(rows), chosen, tmp_path, order=order, n_classes=(1,), rules=rules)
    assert transform.vocabulary.terms.to_pylist() == ["a", "b", "zed"]
    assert read(tmp_path).train.tag_index.tolist() == [[2, 3], [1, 2], [1, 0]]


def test_no_scratch_file_stays_behind(tmp_path):
    written(tmp_path, [["a"], ["b"], ["a", "b"]])
    shards = ["features-00000.h5", "features-00001.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*shards, "transform.h5", "vocabulary.parquet"]
    with h5py.File(tmp_path / "features-00001.h5") as file:
        assert file["item_id"][...].tolist() == [2]


def test_a_column_that_is_not_there_leaves_nothing_behind(tmp_path):
    wrong = [batch.rename_columns(["item_id", "words"]) for batch in batches([["a"]])]
    with pytest.raises(FeatureError, match="column 'tags' is missing"):
        write_catalog(wrong, CHOSEN, tmp_path, order=Order.as_given(1), n_classes=(1,))
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_not_for_training_change_no_transform(tmp_path):
    found = []
    for number, others in enumerate((["b"], ["c", "d e", "b"], [])):
        folder = tmp_path / str(number)
        folder.mkdir()
        order = Order(np.zeros((3, 1), np.int32), np.array([0, 1, 0], np.uint8), np.array([0, 2, 1]))
        rows = batches([["a", "b"], others, ["a"]])
        write_catalog(rows, CHOSEN, folder, order=order, n_classes=(1,))
        found.append((folder / "transform.h5").read_bytes())
    assert found[0] == found[1] == found[2]
