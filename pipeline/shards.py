"""Stage 2's results on disk: features-NNNNN.h5, and training's view of them.

    tag_index                                int32 (n_items, n_tags)
    features/{data, indices, indptr, shape}  CSC, float32 values, (n_items, n_features)
    dense                                    float32 (n_items, n_dense)
    labels                                   int32 (n_items, n_levels); -1 is unknown
    item_id                                  int64 (n_items,), or a group of UTF-8 bytes and offsets
    split                                    uint8 (n_items,): 0 train, 1 validation, 2 test
    attributes                               n_vocabulary, n_features, n_dense, n_classes (n_levels,)

Taking rows from CSC is slow (facts: 40 times CSR), so reading converts each shard once to CSR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, vstack

from pipeline.errors import FeatureError
from pipeline.features import Features, FeatureTransform, check_features, check_sparse
from pipeline.hdf5 import read_array, read_group, read_strings, write_array, write_strings
from pipeline.hdf5_files import created
from pipeline.partition import SPLITS, Piece


@dataclass(frozen=True, eq=False)
class LabelledItems:
    """The items of one split, in their final order."""

    tag_index: NDArray[np.int32]  # (n_items, n_tags); 0 pads
    features: Any  # csr_matrix float32 (n_items, n_features)
    dense: NDArray[np.float32]  # (n_items, n_dense)
    labels: NDArray[np.int32]  # (n_items, n_levels); -1 is unknown

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def none(cls, widths: Widths) -> LabelledItems:
        """Return no items of these widths."""
        features = csr_matrix((0, widths.n_features), dtype=np.float32)
        dense, labels = np.zeros((0, widths.n_dense), np.float32), np.zeros((0, widths.n_levels), np.int32)
        return cls(np.zeros((0, 1), np.int32), features, dense, labels)


@dataclass(frozen=True)
class Widths:
    """The sizes of the tables that the items address."""

    n_vocabulary: int  # ids, with 0 for padding
    n_features: int
    n_dense: int
    n_classes: tuple[int, ...]  # of each level in the taxonomy; the labels need not show them all

    @property
    def n_levels(self) -> int:
        """Return the number of levels."""
        return len(self.n_classes)


def write_shard(
    path: Path, piece: Piece, features: Features, transform: FeatureTransform, *, n_classes: Sequence[int]
) -> None:
    """Write one shard: a piece and its features; the same items give the same bytes."""
    widths = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": transform.n_dense}
    item_id = pa.concat_arrays(piece.items["item_id"].chunks)
    with created(path) as file:
        for name, value in widths.items():
            file.attrs[name] = np.int64(value)
        file.attrs["n_classes"] = np.array(n_classes, np.int64)
        write_array(file, "tag_index", features.tag_index)
        write_sparse(file.create_group("features"), features.features)
        write_array(file, "dense", features.dense)
        write_array(file, "labels", piece.labels)
        write_array(file, "split", piece.split)
        if pa.types.is_integer(item_id.type):
            write_array(file, "item_id", np.asarray(item_id).astype(np.int64))
        else:
            write_strings(file, "item_id", item_id)


def write_sparse(group: Any, matrix: Any) -> None:
    """Write a CSC matrix as data, indices, indptr and shape."""
    for name in ("data", "indices", "indptr"):
        write_array(group, name, getattr(matrix, name))
    write_array(group, "shape", np.array(matrix.shape, np.int64))


def read_sparse(group: Any, *, shape: tuple[int, int]) -> Any:
    """Return a CSC matrix of this shape. Raises FeatureError where the arrays do not make one."""
    stored = tuple(int(length) for length in read_array(group, "shape", np.int64, (2,)))
    if stored != shape:
        raise FeatureError(f"{group.file.filename}: {group.name} has shape {stored}, not {shape}")
    data = read_array(group, "data", np.float32, (None,))
    indices = read_array(group, "indices", np.int32, data.shape)
    indptr = read_array(group, "indptr", np.int32, (shape[1] + 1,))
    matrix = csc_matrix(shape, dtype=np.float32)
    # Set, not passed: SciPy's own check would come first and raise its own errors.
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    check_sparse(matrix)
    return matrix


def read_shard(path: Path) -> tuple[LabelledItems, NDArray[np.uint8], Widths]:
    """Return a shard's items, the split of each, and the widths. Raises FeatureError where it is damaged."""
    with _opened(path) as file:
        widths = _read_widths(file)
        labels = read_array(file, "labels", np.int32, (None, widths.n_levels))
        n_items = len(labels)
        split = read_array(file, "split", np.uint8, (n_items,))
        features = Features(
            tag_index=read_array(file, "tag_index", np.int32, (n_items, None)),
            features=read_sparse(read_group(file, "features"), shape=(n_items, widths.n_features)),
            dense=read_array(file, "dense", np.float32, (n_items, widths.n_dense)),
            n_unseen_tags=np.zeros(n_items, np.int32),
        )
    sizes = {"n_vocabulary": widths.n_vocabulary, "n_features": widths.n_features, "n_dense": widths.n_dense}
    check_features(features, **sizes)
    _check_split(path, split)
    if n_items and (labels.min() < -1 or labels[:, 0].min() < 0):
        raise FeatureError(f"{path}: a label below -1, or an item without a top label; run stage 2")
    items = LabelledItems(features.tag_index, features.features.tocsr(), features.dense, labels)
    return items, split, widths


def read_split(path: Path) -> tuple[NDArray[np.uint8], Widths]:
    """Return the split of each of a shard's items, and the widths. Raises FeatureError where it is damaged."""
    with _opened(path) as file:
        split = read_array(file, "split", np.uint8, (None,))
        widths = _read_widths(file)
    _check_split(path, split)
    return split, widths


def read_labels(path: Path) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the labels of a shard's items, (n_items, n_levels), and their split. Raises FeatureError for a bad one."""
    with _opened(path) as file:
        labels = read_array(file, "labels", np.int32, (None, _read_widths(file).n_levels))
        split = read_array(file, "split", np.uint8, (len(labels),))
    _check_split(path, split)
    return labels, split


def read_item_ids(folder: Path) -> Iterator[pa.Array]:
    """Yield the ids of each shard's items, int64 or string, in their final order."""
    for path in sorted(folder.glob("features-*.h5")):
        with h5py.File(path, "r") as file:
            if isinstance(file.get("item_id"), h5py.Group):
                yield read_strings(file, "item_id")
            else:
                yield pa.array(read_array(file, "item_id", np.int64, (None,)))


def _opened(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FeatureError(f"{path}: is not an HDF5 file that can be read ({error})") from None


def _check_split(path: Path, split: NDArray[np.uint8]) -> None:
    if len(split) and split.max() >= len(SPLITS):
        raise FeatureError(f"{path}: an item of an unknown split; run stage 2")


def _read_widths(file: Any) -> Widths:
    names = ("n_vocabulary", "n_features", "n_dense", "n_classes")
    missing = [name for name in names if name not in file.attrs]
    if missing:
        raise FeatureError(f"{file.filename}: attribute '{missing[0]}' is missing; run stage 2 again")
    n_vocabulary, n_features, n_dense = (int(file.attrs[name]) for name in names[:3])
    return Widths(n_vocabulary, n_features, n_dense, tuple(int(n) for n in file.attrs["n_classes"]))


def rows(items: LabelledItems, index: Any) -> LabelledItems:
    """Return the items of this index: a slice, or an array of numbers or of booleans."""
    return LabelledItems(items.tag_index[index], items.features[index], items.dense[index], items.labels[index])


def join(parts: list[LabelledItems]) -> LabelledItems:
    """Return the items below each other, tag indexes padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    n_tags = max(part.tag_index.shape[1] for part in parts)
    padded = [np.pad(part.tag_index, ((0, 0), (0, n_tags - part.tag_index.shape[1]))) for part in parts]
    features = csr_matrix(vstack([part.features for part in parts], format="csr"))
    dense = np.concatenate([part.dense for part in parts])
    return LabelledItems(np.concatenate(padded), features, dense, np.concatenate([part.labels for part in parts]))
