"""Arrays and strings come back from HDF5 only where the file really holds what it declares."""

import h5py
import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import FeatureError
from pipeline.hdf5 import (
    read_array,
    read_facts,
    read_group,
    read_strings,
    write_array,
    write_facts,
    write_strings,
)


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        yield file


def test_arrays_strings_and_facts_come_back(file):
    write_array(file, "a", np.arange(6, dtype=np.int32).reshape(2, 3))
    write_strings(file, "s", pa.array(["é", "", "zom\0bie"]))
    write_facts(file, {"title": "naïve", "n": [1, 2]})
    assert read_array(file, "a", np.int32, (None, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_strings(file, "s").to_pylist() == ["é", "", "zom\0bie"]
    assert read_facts(file) == {"title": "naïve", "n": [1, 2]}


def test_nothing_comes_back_as_nothing(file):
    write_array(file, "a", np.zeros((0, 3), np.float32))
    write_strings(file, "s", pa.array([], pa.string()))
    assert read_array(file, "a", np.float32, (0, 3)).shape == (0, 3)
    assert read_strings(file, "s").to_pylist() == []


def test_a_declared_size_that_the_file_does_not_hold_is_refused_before_allocation(file):
    file.create_dataset("bomb", shape=(2**40,), dtype=np.int64)
    with pytest.raises(FeatureError, match="declares 8796093022208 bytes and stores 0"):
        read_array(file, "bomb", np.int64, (None,))


def test_a_compressed_array_is_refused(file):
    file.create_dataset("bomb", data=np.zeros(10_000, np.int64), compression="gzip")
    with pytest.raises(FeatureError, match="declares 80000 bytes"):
        read_array(file, "bomb", np.int64, (None,))


@pytest.mark.parametrize(("dtype", "shape"), [(np.int64, (2,)), (np.int32, (3,)), (np.int32, (2, 1)), (np.int32, ())])
def test_another_type_or_shape_is_refused(file, dtype, shape):
    write_array(file, "a", np.zeros(2, np.int32))
    with pytest.raises(FeatureError, match=r"/a is int32 \(2,\), not int"):
        read_array(file, "a", dtype, shape)


def test_a_link_to_elsewhere_is_refused(file):
    file["outside"] = h5py.ExternalLink("other.h5", "/a")
    file["soft"] = h5py.SoftLink("/a")
    for name in ("outside", "soft", "absent"):
        with pytest.raises(FeatureError, match="is not an array of this file"):
            read_array(file, name, np.int32, (None,))
        with pytest.raises(FeatureError, match="is not a group of this file"):
            read_group(file, name)


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 3], [0, 2, 1, 2]])
def test_offsets_that_do_not_fit_the_bytes_are_refused(file, offsets):
    group = file.create_group("s")
    write_array(group, "bytes", np.array([97, 98], np.uint8))
    write_array(group, "offsets", np.array(offsets, np.int64))
    with pytest.raises(FeatureError, match="do not fit 2 bytes"):
        read_strings(file, "s")


def test_bytes_that_are_not_utf8_are_refused(file):
    group = file.create_group("s")
    write_array(group, "bytes", np.array([0xFF, 0xFE], np.uint8))
    write_array(group, "offsets", np.array([0, 2], np.int64))
    with pytest.raises(FeatureError, match="does not hold UTF-8"):
        read_strings(file, "s")


def test_facts_that_are_not_json_are_refused(file):
    with pytest.raises(FeatureError, match="is absent"):
        read_facts(file)
    file.attrs["facts"] = "{"
    with pytest.raises(FeatureError, match="is not JSON"):
        read_facts(file)
