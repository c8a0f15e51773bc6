import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import shard_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_folders import write_folder

from pipeline import shards
from pipeline.errors import FeatureError
from pipeline.parts import open_parts


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    return [write_folder(root / str(size), 103, shard_items=size) for size in (7, 40, 1000)]


def same(found, expected):
    n_tags = max(found.tag_index.shape[1], expected.tag_index.shape[1])
    tags = [np.pad(x.tag_index, ((0, 0), (0, n_tags - x.tag_index.shape[1]))) for x in (found, expected)]
    np.testing.assert_array_equal(*tags)
    np.testing.assert_array_equal(found.features.toarray(), expected.features.toarray())
    np.testing.assert_array_equal(found.dense, expected.dense)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_the_parts_have_the_items_of_their_split(folders):
    for folder in folders:
        parts, whole = open_parts(folder), shard_folders.read(folder)
        assert (len(parts.train), len(parts.validation), len(parts.test)) == (83, 20, 0)
        assert parts.widths == whole.widths
        same(parts.train.items(0, 83), whole.train)
        same(parts.validation.items(0, 20), whole.validation)
        assert len(parts.test.read(0, 0)) == 0


@given(st.integers(0, 90), st.integers(0, 90))
@settings(max_examples=25)
def test_any_range_of_positions_is_read_whatever_the_size_of_a_shard(folders, start, length):
    whole = shard_folders.read(folders[0]).train
    for folder in folders:
        same(open_parts(folder).train.items(start, start + length), shards.rows(whole, slice(start, start + length)))


def test_one_shard_at_a_time_is_held(folders, monkeypatch):
    read = []
    monkeypatch.setattr("pipeline.parts.read_shard", lambda path: read.append(path.name) or shards.read_shard(path))
    part = open_parts(folders[0]).train
    for start in range(0, 28, 2):
        part.items(start, start + 2)
    assert read == [f"features-{number:05d}.h5" for number in range(4)]


def test_a_folder_without_shards_and_shards_of_other_widths_are_errors(tmp_path):
    with pytest.raises(FeatureError, match=r"no features-00000.h5; run stage 2"):
        open_parts(tmp_path)
    folder = write_folder(tmp_path / "mixed", 20, shard_items=10)
    with h5py.File(folder / "features-00001.h5", "r+") as file:
        file.attrs["n_vocabulary"] = 41
    with pytest.raises(FeatureError, match=r"features-00001.h5: holds .*n_vocabulary=41"):
        open_parts(folder)


def test_a_shard_that_is_no_file_of_hdf5_is_an_error_where_it_is_opened(tmp_path):
    folder = write_folder(tmp_path / "damaged", 20, shard_items=10)
    (folder / "features-00001.h5").write_bytes(b"no")
    with pytest.raises(FeatureError, match=r"features-00001.h5: is not an HDF5 file"):
        open_parts(folder)


PEAK = """
import resource, sys
from pathlib import Path
from pipeline import batches, history
from pipeline.examples import chunks
from pipeline.parts import open_parts
batches.BLOCK, batches.WINDOW = int(sys.argv[2]), 4 * int(sys.argv[2])
parts = open_parts(Path(sys.argv[1]))
loader = batches.Loader(parts.train, n_hidden=8, batch_size=1024, seed=1, dropout=0.3)
n_items = sum(len(batch.labels) for epoch in (1, 2) for batch in loader.epoch(epoch))
n_items += sum(len(chunk) for chunk in chunks(parts.validation, 2048))
print(n_items, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(folder, block):
    """Return how many items two epochs and a validation read, and the megabytes of memory at their peak."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PEAK, str(folder), str(block)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    n_items, kilobytes = map(int, done.stdout.split())
    return n_items, kilobytes / 1024


@pytest.mark.parametrize(
    ("block", "n_items"),
    [(2_000, (32_000, 96_000)), pytest.param(50_000, (400_000, 2_000_000), marks=pytest.mark.bench)],
)
def test_memory_does_not_grow_with_the_catalog(tmp_path, block, n_items):
    sizes = {"shard_items": block, "n_tags": 200, "n_features": 1000}
    few, many = (peak(write_folder(tmp_path / str(n), n, **sizes), block) for n in n_items)
    assert (few[0], many[0]) == (n_items[0] * 1.8, n_items[1] * 1.8)
    # 200 tags of 4 bytes and 3 features of 8: what it would take to hold the items that are more.
    more = (n_items[1] - n_items[0]) * 824 / 2**20
    print(f"peak memory: {few[1]:.0f} MB for {n_items[0]:,} items, {many[1]:.0f} MB for {n_items[1]:,}")
    assert many[1] - few[1] < more / 4
