"""Ids of tags: by descending document frequency, ties by text, 0 for what was not seen."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from pipeline import vocabulary as module
from pipeline.errors import FeatureError
from pipeline.vocabulary import TermCounter, Vocabulary


def counted(*batches: dict[str, int]) -> TermCounter:
    counter = TermCounter()
    for batch in batches:
        counter.add(pa.array(list(batch), pa.string()), np.array(list(batch.values()), np.int64))
    return counter


def test_ids_descend_by_frequency_and_ties_stand_by_text():
    fitted = counted({"space": 2, "zombies": 5, "robots": 2}).vocabulary(min_count=1, max_size=9)
    assert fitted.terms.to_pylist() == ["zombies", "robots", "space"]
    assert fitted.document_frequency.tolist() == [5, 2, 2]
    assert fitted.ids(pa.array(["space", "zombies"])).tolist() == [3, 1]


def test_counts_of_batches_add_up_in_any_order():
    batches = [{"a": 1, "b": 2}, {"b": 1, "c": 9}, {"a": 1}]
    first = counted(*batches).vocabulary(min_count=1, max_size=9)
    second = counted(*batches[::-1]).vocabulary(min_count=1, max_size=9)
    assert first.table().equals(second.table())
    assert first.document_frequency.tolist() == [9, 3, 2]


def test_merging_often_changes_nothing(monkeypatch):
    batches = [{"a": 1, "b": 2}, {"b": 1, "c": 9}]
    once = counted(*batches).vocabulary(min_count=1, max_size=9)
    monkeypatch.setattr(module, "_MERGE_AT", 1)
    assert counted(*batches).vocabulary(min_count=1, max_size=9).table().equals(once.table())


def test_rare_terms_and_those_beyond_the_largest_size_get_no_id():
    counter = counted({"a": 4, "b": 3, "c": 1})
    assert counter.vocabulary(min_count=2, max_size=9).terms.to_pylist() == ["a", "b"]
    assert counter.vocabulary(min_count=1, max_size=1).terms.to_pylist() == ["a"]


def test_unseen_terms_have_id_zero_in_short_and_long_requests(monkeypatch):
    fitted = Vocabulary(pa.array(["x", "é"]), np.array([2, 1]))
    request = pa.array(["é", "new", "x", ""])
    assert fitted.ids(request).tolist() == [2, 0, 1, 0]
    monkeypatch.setattr(module, "_FEW_TERMS", 0)
    assert fitted.ids(request).tolist() == [2, 0, 1, 0]
    assert fitted.ids(request).dtype == np.int32


def test_an_empty_vocabulary_knows_nothing():
    fitted = counted().vocabulary(min_count=1, max_size=9)
    assert len(fitted) == 0
    assert fitted.ids(pa.array(["x"])).tolist() == [0]


def test_table_holds_tag_id_and_frequency():
    table = counted({"a": 4, "b": 7}).vocabulary(min_count=1, max_size=9).table()
    assert table.to_pydict() == {"tag": ["b", "a"], "id": [1, 2], "document_frequency": [7, 4]}
    assert table.schema.field("id").type == pa.int32()


def test_a_vocabulary_survives_saving(tmp_path):
    fitted = Vocabulary(pa.array(["naïve", "", "zo\0m"]), np.array([3, 2, 1]))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        fitted.save(file)
    with h5py.File(tmp_path / "v.h5") as file:
        assert Vocabulary.load(file).table().equals(fitted.table())


def test_terms_without_frequencies_are_refused():
    with pytest.raises(FeatureError, match="1 terms with 2 document frequencies"):
        Vocabulary(pa.array(["a"]), np.array([1, 2]))
