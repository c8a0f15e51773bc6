"""Stage 2: clean tags become a padded index matrix, sparse features and dense columns.

One transform, fitted on the training items only, makes the features for training and, embedded in the model
file, those for scoring. A row's features depend on that row alone: not on order, batch, file or shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.bags import BatchBags
from pipeline.blocks import Block, BlockFitter, beside
from pipeline.config import Settings
from pipeline.config_features import FeatureSettings
from pipeline.dense import Column, DenseFitter, load_column
from pipeline.errors import FeatureError
from pipeline.hdf5 import read_facts, read_group, write_facts
from pipeline.sources import FeatureColumns, sources
from pipeline.vocabulary import TermCounter, Vocabulary

FORMAT = 2


@dataclass(frozen=True, eq=False)
class Features:
    """What the network reads of each item. Raises FeatureError where types or numbers of items disagree."""

    tag_index: NDArray[np.int32]  # (n_items, n_tags); 0 is padding, ids ascend within a row
    features: Any  # csc_matrix float32 (n_items, n_features), values in [0, 1]
    dense: NDArray[np.float32]  # (n_items, n_dense); n_dense may be 0
    n_unseen_tags: NDArray[np.int32]  # (n_items,): tags without an id

    def __post_init__(self) -> None:
        n_items = len(self.tag_index)
        for name, array, dtype, ndim in (
            ("tag_index", self.tag_index, np.int32, 2),
            ("features", self.features, np.float32, 2),
            ("dense", self.dense, np.float32, 2),
            ("n_unseen_tags", self.n_unseen_tags, np.int32, 1),
        ):
            if array.dtype != dtype or array.ndim != ndim or array.shape[0] != n_items:
                wanted = f"{np.dtype(dtype)} with {ndim} dimension(s) and {n_items} rows"
                raise FeatureError(f"{name} is {array.dtype} {array.shape}, not {wanted}")

    @property
    def n_items(self) -> int:
        """Return the number of items."""
        return len(self.tag_index)


@dataclass(frozen=True, eq=False)
class FeatureTransform:
    """How clean tags (and other columns) become features: fitted once, stored, applied the same way everywhere."""

    settings: FeatureSettings
    columns: FeatureColumns
    vocabulary: Vocabulary  # of tags
    blocks: tuple[Block, ...]
    dense: tuple[Column, ...]
    n_items: int  # training items that it was fitted on

    @classmethod
    def fit(cls, batches: pa.Table | Iterable[pa.RecordBatch], settings: Settings) -> FeatureTransform:
        """Return the transform of the items given: hand in training items only.

        Columns are those of items.parquet: tags, tag_counts where known, and text.<column>, category.<column>,
        dense.<column> as the catalog names them. Raises FeatureError where there are no items or a column is
        missing, SettingsError where a block has nothing to read.
        """
        fitter = Fitter(settings)
        for batch in batches.to_batches() if isinstance(batches, pa.Table) else batches:
            fitter.add_items(batch)
        return fitter.transform()

    @property
    def n_vocabulary(self) -> int:
        """Return the number of ids, with 0 for padding: rows of the embedding table."""
        return len(self.vocabulary) + 1

    @property
    def n_features(self) -> int:
        """Return the number of sparse columns."""
        return sum(block.n_columns for block in self.blocks)

    @property
    def n_dense(self) -> int:
        """Return the number of dense columns."""
        return sum(column.n_columns for column in self.dense)

    def transform(self, batch: pa.RecordBatch | pa.Table) -> Features:
        """Return the features of a batch with the columns that `fit` read, of any number of rows.

        A row without tags has zeros only; a tag without an id is counted in n_unseen_tags. Raises FeatureError
        where a column is missing or of another type.
        """
        return self.transform_bags(BatchBags(batch, text_lengths=self.columns.text_lengths(self.settings)))

    def transform_bags(self, bags: BatchBags) -> Features:
        """Return the features of a batch whose bags are made already."""
        chosen = self.settings
        seen = bags.known_tags(self.vocabulary).tocsr()
        ids = seen.indices + np.int32(1)
        order = {"rare": lambda: -ids, "first": lambda: bags.tag_order(self.vocabulary)}.get(chosen.keep_tags)
        parts = [block.transform(bags, self.settings) for block in self.blocks]
        dense = [column.transform(bags.column(f"dense.{column.name}")) for column in self.dense]
        return Features(
            tag_index=pad(seen.indptr, ids, max_tags=chosen.max_tags, order=order),
            features=beside(parts, n_items=bags.n_items),
            dense=np.concatenate([np.zeros((bags.n_items, 0), np.float32), *dense], axis=1),
            n_unseen_tags=bags.n_tags - np.diff(seen.indptr).astype(np.int32),
        )

    def feature_names(self, indices: Sequence[int] | NDArray[Any]) -> list[str]:
        """Return the names of sparse columns, such as `tag:zombies`, `word:undead`, `chars:zom`, `plot.word:end`.

        A hash bucket stands for several n-grams: it is called by the one on the most frequent tag, or by its
        number (`plot.chars:#12`). Raises FeatureError for an index out of range.
        """
        ends = np.cumsum([0, *(block.n_columns for block in self.blocks)])
        names = []
        for index in indices:
            if not 0 <= index < self.n_features:
                raise FeatureError(f"feature {index} does not exist; there are {self.n_features}")
            place = int(np.searchsorted(ends, index, side="right")) - 1
            column = int(index - ends[place])
            names.append(self.blocks[place].name(column, self.settings, self.vocabulary))
        return names

    def dense_names(self) -> list[str]:
        """Return the names of the dense columns, such as `number:year`, `number:year missing`, `vector:plot:0`."""
        return [name for column in self.dense for name in column.names()]

    def save(self, group: Any) -> None:
        """Write the transform into an HDF5 group; the same transform gives the same bytes."""
        settings = self.settings.model_dump(mode="json", exclude={"engine"})  # who made them is no part of them
        columns = asdict(self.columns)
        write_facts(group, {"format": FORMAT, "settings": settings, "columns": columns, "n_items": self.n_items})
        self.vocabulary.save(group.create_group("vocabulary"))
        blocks = group.create_group("blocks")
        for number, block in enumerate(self.blocks):
            block.save(blocks.create_group(f"{number:03}"))
        dense = group.create_group("dense")
        for number, column in enumerate(self.dense):
            column.save(dense.create_group(f"{number:03}"))

    @classmethod
    def load(cls, group: Any) -> FeatureTransform:
        """Read a transform from an HDF5 group. Raises FeatureError where it is damaged or of another format."""
        facts = read_facts(group)
        place = f"{group.file.filename}: {group.name}"
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise FeatureError(f"{place} is not a feature transform of format {FORMAT}; train the model again")
        try:
            settings = FeatureSettings.model_validate(facts["settings"])
            columns = FeatureColumns(**{kind: tuple(map(str, names)) for kind, names in facts["columns"].items()})
            n_items = int(facts["n_items"])
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise FeatureError(f"{place} has settings that do not fit: {error}") from None
        vocabulary = Vocabulary.load(read_group(group, "vocabulary"))
        inner = read_group(group, "blocks")
        blocks = tuple(
            Block.load(
                read_group(inner, f"{number:03}"), source=source, settings=settings, tags=vocabulary, n_items=n_items
            )
            for number, source in enumerate(sources(settings, columns))
        )
        dense = read_group(group, "dense")
        n_dense = len(columns.numbers) + len(columns.vectors)
        fitted = tuple(load_column(read_group(dense, f"{number:03}")) for number in range(n_dense))
        if tuple(column.name for column in fitted) != (*columns.numbers, *columns.vectors):
            raise FeatureError(f"{place}/dense does not hold the columns {(*columns.numbers, *columns.vectors)}")
        return cls(settings, columns, vocabulary, blocks, fitted, n_items)


def load_transform(path: Path) -> FeatureTransform:
    """Return the transform that stage 2 left in transform.h5."""
    with h5py.File(path, "r") as file:
        return FeatureTransform.load(read_group(file, "transform"))


class Fitter:
    """Gathers, batch by batch of training items, what a transform is made of; several can be merged."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.features
        self.columns = FeatureColumns.of(settings.catalog)
        self.text_lengths = self.columns.text_lengths(self.settings)
        self.tags = TermCounter()
        self.n_items = 0
        self._blocks = [BlockFitter(source, self.settings) for source in sources(self.settings, self.columns)]
        self._dense = DenseFitter(numbers=self.columns.numbers, vectors=self.columns.vectors)

    def add_items(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Count a batch of training items."""
        bags = BatchBags(batch, text_lengths=self.text_lengths)
        self.tags.add(bags.tags.terms, bags.tags.document_frequency())
        self.add(bags)

    def merge(self, other: Fitter) -> None:
        """Count what another fitter of the same settings has counted; the order of merging changes nothing."""
        self.tags.merge(other.tags)
        for block, counted in zip(self._blocks, other._blocks, strict=True):
            block.merge(counted)
        self._dense.merge(other._dense)
        self.n_items += other.n_items

    def add(self, bags: BatchBags) -> None:
        """Count a batch, all but its tags."""
        for block in self._blocks:
            block.add(bags)
        self._dense.add(bags.column)
        self.n_items += bags.n_items

    def transform(self) -> FeatureTransform:
        """Return the fitted transform. Raises FeatureError where there were no items."""
        chosen = self.settings
        if self.n_items == 0:
            raise FeatureError("there are no training items to fit features on; check labels and split")
        vocabulary = self.tags.vocabulary(min_count=chosen.min_count, max_size=chosen.max_vocabulary)
        blocks = tuple(block.block(vocabulary, n_items=self.n_items) for block in self._blocks)
        return FeatureTransform(chosen, self.columns, vocabulary, blocks, self._dense.columns(), self.n_items)


def pad(
    indptr: NDArray[Any], ids: NDArray[np.int32], *, max_tags: int, order: Callable[[], NDArray[Any]] | None = None
) -> NDArray[np.int32]:
    """Return ids as a matrix (n_items, n_tags) with 0 behind the last; row i holds `ids[indptr[i]:indptr[i + 1]]`.

    n_tags is the length of the longest row, at least 1, at most max_tags; a longer row keeps its first, which
    are the most frequent where ids ascend, or those that come first by `order` (which is asked only then).

    >>> pad(np.array([0, 1, 1, 4]), np.array([3, 4, 5, 9], np.int32), max_tags=2).tolist()
    [[3, 0], [0, 0], [4, 5]]
    >>> indptr, ids, order = np.array([0, 3]), np.array([4, 5, 9], np.int32), np.array([2, 1, 0])
    >>> pad(indptr, ids, max_tags=2, order=lambda: order).tolist()
    [[5, 9]]
    """
    lengths = np.diff(indptr)
    n_tags = int(min(max_tags, lengths.max(initial=1)))
    filled = np.arange(n_tags) < lengths[:, None]
    matrix = np.zeros((len(lengths), n_tags), np.int32)
    if lengths.max(initial=0) > max_tags:
        rows = np.repeat(np.arange(len(lengths)), lengths)
        rank = np.arange(len(ids)) - indptr[rows]
        if order is not None:
            rank[np.lexsort((order(), rows))] = rank.copy()
        ids = ids[rank < max_tags]
    matrix[filled] = ids
    return matrix


def check_features(features: Features, *, n_vocabulary: int, n_features: int, n_dense: int) -> None:
    """Raise FeatureError where an index or a width does not fit the tables of a network."""
    index, matrix = features.tag_index, features.features
    if index.size and (np.min(index) < 0 or np.max(index) >= n_vocabulary):
        raise FeatureError(f"tag_index runs from {np.min(index)} to {np.max(index)}; ids are 0 to {n_vocabulary - 1}")
    if matrix.shape[1] != n_features or features.dense.shape[1] != n_dense:
        have = f"{matrix.shape[1]} sparse and {features.dense.shape[1]} dense columns"
        raise FeatureError(f"the items have {have}; {n_features} and {n_dense} were fitted")
    check_sparse(matrix)


def check_sparse(matrix: Any) -> None:
    """Raise FeatureError where a CSC matrix points outside itself or holds a value outside [0, 1]."""
    n_items = matrix.shape[0]
    ends, rows, values = matrix.indptr, matrix.indices, matrix.data
    if ends[0] != 0 or ends[-1] != len(rows) or len(rows) != len(values) or (np.diff(ends) < 0).any():
        raise FeatureError(f"features/indptr does not fit {len(rows)} indices and {len(values)} values")
    if len(rows) and (rows.min() < 0 or rows.max() >= n_items):
        raise FeatureError(f"features/indices run from {rows.min()} to {rows.max()}; there are {n_items} items")
    if len(values) and not (values.min() >= 0 and values.max() <= 1):
        raise FeatureError(f"features/data run from {values.min()} to {values.max()}, not within [0, 1]")


def build(settings: Settings, clean_folder: Path, folder: Path) -> None:
    """Write vocabulary.parquet, transform.h5 and features-NNNNN.h5 into the folder, from stage 1's folder.

    Raises CatalogError where no training item is labelled.
    """
    from pipeline import catalog

    catalog.build(settings, clean_folder, folder)
