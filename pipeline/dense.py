"""Stage 2: dense columns: numbers scaled by the quantiles of the training items, and vectors as they are.

    number    2 columns: where the value stands among those of training, in [0, 1]; 1 where it is missing
    vector    a column for each of its numbers; 1 where it is missing

A missing value is 0 in its own columns. Between two quantiles a number is placed in proportion; beyond the first
and last of training it is 0 and 1, and a value that several quantiles share stands in their middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import FeatureError
from pipeline.hdf5 import read_array, read_facts, write_array, write_facts

N_QUANTILES = 101


@dataclass(frozen=True, eq=False)
class Number:
    """A column of numbers."""

    name: str
    quantiles: NDArray[np.float64]  # (n,): distinct values of training, ascending; none where all were missing
    levels: NDArray[np.float64]  # (n,): the share of training items at or below each, in [0, 1]

    n_columns = 2

    @classmethod
    def fit(cls, name: str, values: NDArray[np.float64]) -> Number:
        """Return the column fitted on the values of training that are not missing, in any order.

        >>> Number.fit("year", np.array([1990.0, 2010.0])).transform(pa.array([2000.0, None, 1900.0])).tolist()
        [[0.5, 0.0], [0.0, 1.0], [0.0, 0.0]]
        """
        if len(values) == 0:
            return cls(name, np.zeros(0), np.zeros(0))
        shares = np.linspace(0, 1, N_QUANTILES)
        quantiles, place, n_shares = np.unique(
            np.quantile(np.sort(values), shares), return_inverse=True, return_counts=True
        )
        return cls(name, quantiles, np.bincount(place.reshape(-1), weights=shares) / n_shares)

    def transform(self, column: pa.Array) -> NDArray[np.float32]:
        """Return the dense columns, (n_items, 2). Raises FeatureError where the column holds no numbers."""
        values = numbers_of(column, self.name)
        missing = np.isnan(values)
        scaled = np.zeros(len(values))
        if len(self.quantiles):
            scaled[~missing] = np.interp(values[~missing], self.quantiles, self.levels)
        return np.asarray(np.stack([scaled, missing], axis=1), np.float32)

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [f"number:{self.name}", f"number:{self.name} missing"]

    def save(self, group: Any) -> None:
        """Write the column into an HDF5 group."""
        write_facts(group, {"kind": "number", "name": self.name})
        write_array(group, "quantiles", self.quantiles)
        write_array(group, "levels", self.levels)


@dataclass(frozen=True)
class Vector:
    """A column of vectors of one width."""

    name: str
    width: int  # 0: all were missing in training

    @property
    def n_columns(self) -> int:
        """Return the number of dense columns."""
        return self.width + 1

    def transform(self, column: pa.Array) -> NDArray[np.float32]:
        """Return the dense columns, (n_items, width + 1); null and empty lists are missing.

        Raises FeatureError where the column holds no lists of numbers, or a vector of another width.

        >>> Vector("plot", 2).transform(pa.array([[0.5, -1], None])).tolist()
        [[0.5, -1.0, 0.0], [0.0, 0.0, 1.0]]
        """
        lengths = lengths_of(column, self.name)
        there = lengths > 0
        wrong = np.flatnonzero(there & (lengths != self.width)) if self.width else np.zeros(0, np.int64)
        if len(wrong):
            raise FeatureError(
                f"column 'dense.{self.name}' row {wrong[0]} has {lengths[wrong[0]]} numbers; training had {self.width}"
            )
        dense = np.zeros((len(column), self.width + 1), np.float32)
        dense[~there, -1] = 1
        if self.width and there.any():
            values = numbers_of(column.flatten(), self.name).astype(np.float32)
            if not np.isfinite(values).all():
                raise FeatureError(f"column 'dense.{self.name}' holds a number that is missing or not finite")
            dense[there, :-1] = values.reshape(-1, self.width)
        return dense

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [*(f"vector:{self.name}:{place}" for place in range(self.width)), f"vector:{self.name} missing"]

    def save(self, group: Any) -> None:
        """Write the column into an HDF5 group."""
        write_facts(group, {"kind": "vector", "name": self.name, "width": self.width})


Column = Number | Vector


class DenseFitter:
    """Gathers the numbers and the widths of vectors of training, batch by batch: 8 bytes a number and item."""

    def __init__(self, *, numbers: tuple[str, ...], vectors: tuple[str, ...]) -> None:
        self._numbers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in numbers}
        self._widths: dict[str, set[int]] = {name: set() for name in vectors}

    def add(self, column_of: Callable[[str], pa.Array]) -> None:
        """Count the columns of a batch."""
        for name, parts in self._numbers.items():
            values = numbers_of(column_of(f"dense.{name}"), name)
            parts.append(values[~np.isnan(values)])
        for name, widths in self._widths.items():
            lengths = lengths_of(column_of(f"dense.{name}"), name)
            widths.update(np.unique(lengths[lengths > 0]).tolist())

    def merge(self, other: DenseFitter) -> None:
        """Gather what another fitter of the same columns has gathered."""
        for name, parts in self._numbers.items():
            parts += other._numbers[name]
        for name, widths in self._widths.items():
            widths |= other._widths[name]

    def columns(self) -> tuple[Column, ...]:
        """Return the fitted columns. Raises FeatureError where the vectors of a column differ in width."""
        for name, widths in self._widths.items():
            if len(widths) > 1:
                raise FeatureError(f"column 'dense.{name}' has vectors of {sorted(widths)} numbers, not of one width")
        numbers = (Number.fit(name, np.concatenate([np.zeros(0), *parts])) for name, parts in self._numbers.items())
        return (*numbers, *(Vector(name, max(widths, default=0)) for name, widths in self._widths.items()))


def load_column(group: Any) -> Column:
    """Read a column from an HDF5 group. Raises FeatureError where it is damaged."""
    facts = read_facts(group)
    if not isinstance(facts, dict) or not isinstance(facts.get("name"), str):
        raise FeatureError(f"{group.file.filename}: {group.name} is not a dense column; train the model again")
    if facts.get("kind") == "number":
        quantiles = read_array(group, "quantiles", np.float64, (None,))
        return Number(facts["name"], quantiles, read_array(group, "levels", np.float64, quantiles.shape))
    width = facts.get("width")
    if facts.get("kind") != "vector" or not isinstance(width, int) or not 0 <= width < 2**24:
        raise FeatureError(f"{group.file.filename}: {group.name} holds {facts}, not a number or a vector")
    return Vector(facts["name"], width)


def numbers_of(column: pa.Array, name: str) -> NDArray[np.float64]:
    """Return a column of numbers as floats, (n,); NaN where one is missing. Raises FeatureError for another type."""
    if not (pa.types.is_null(column.type) or pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise FeatureError(f"column 'dense.{name}' holds {column.type}, not numbers")
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan))


def lengths_of(column: pa.Array, name: str) -> NDArray[np.int64]:
    """Return the number of numbers of each vector, (n,); 0 for null. Raises FeatureError for another type."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.int64)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise FeatureError(f"column 'dense.{name}' is {kind}, not a list of numbers")
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
