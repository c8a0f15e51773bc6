"""Folders of shards made of drawn items, without stage 2 before them."""

from typing import NamedTuple

import h5py
import numpy as np
from scipy import sparse

from pipeline.hdf5 import write_array
from pipeline.shards import LabelledItems, Widths, join, read_shard, rows, write_sparse

N_CLASSES = (3, 6)


class TrainingData(NamedTuple):
    """All labelled items of a folder, in memory."""

    train: LabelledItems
    validation: LabelledItems
    test: LabelledItems
    widths: Widths


def read(folder):
    """Return the items of every part, shard by shard as `read_shard` has them: without `pipeline.parts`."""
    found = [read_shard(path) for path in sorted(folder.glob("features-*.h5"))]
    parts = [join([rows(items, split == code) for items, split, _ in found]) for code in range(3)]
    return TrainingData(*parts, found[0][2])


def write_folder(folder, n_items, *, shard_items, seed=1, n_vocabulary=40, n_features=30, n_tags=5, held_out=0.2):
    """Write n_items drawn items in shards; the first tag tells the labels; the last share of them is for validation.

    Items are drawn in blocks of 1,000, so that memory does not grow with their number.
    """
    folder.mkdir()
    n_train = n_items - int(n_items * held_out)
    blocks = _blocks(n_items, seed, n_vocabulary, n_features, n_tags)
    waiting, n_waiting, n_written, number = [], 0, 0, 0
    for block in blocks:
        waiting.append(block)
        n_waiting += len(block[0])
        while n_waiting >= shard_items or (n_waiting and n_written + n_waiting == n_items):
            tags, features, labels = (_stacked(part) for part in zip(*waiting, strict=True))
            n = min(shard_items, n_waiting)
            split = (np.arange(n_written, n_written + n) >= n_train).astype(np.uint8)
            path = folder / f"features-{number:05d}.h5"
            _write(path, tags[:n], features[:n], labels[:n], split, n_vocabulary)
            waiting, n_waiting = [(tags[n:], features[n:], labels[n:])], n_waiting - n
            n_written, number = n_written + n, number + 1
    return folder


def _blocks(n_items, seed, n_vocabulary, n_features, n_tags):
    for start in range(0, n_items, 1000):
        rng = np.random.default_rng([seed, start])
        n = min(1000, n_items - start)
        classes = rng.integers(0, 6, n)
        tags = rng.integers(7, n_vocabulary, (n, n_tags))
        tags[:, 0] = classes + 1
        tags[rng.random(n) < 0.1] = 0
        features = sparse.random(n, n_features, 3 / n_features, format="csr", dtype=np.float32, random_state=rng)
        yield tags.astype(np.int32), features, np.stack([classes // 2, classes], axis=1).astype(np.int32)


def _stacked(parts):
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def _write(path, tags, features, labels, split, n_vocabulary):
    used = np.flatnonzero(tags.any(axis=0))
    with h5py.File(path, "w") as file:
        sizes = {"n_vocabulary": n_vocabulary, "n_features": features.shape[1], "n_dense": 0}
        for name, value in sizes.items():
            file.attrs[name] = np.int64(value)
        file.attrs["n_classes"] = np.array(N_CLASSES, np.int64)
        # As narrow as stage 2 would make a shard of these items.
        write_array(file, "tag_index", tags[:, : used[-1] + 1 if len(used) else 1])
        write_sparse(file.create_group("features"), features.tocsc())
        write_array(file, "dense", np.zeros((len(tags), 0), np.float32))
        write_array(file, "labels", labels)
        write_array(file, "split", split)
