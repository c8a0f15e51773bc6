"""The ladder of labels: classes keyed by full path, their parents, the legal paths, and where a path may stop.

The same name may stand under two parents, so a class is a path from the top: ('Horror', 'Zombies').
A path that ends early is carried down to the last level by stops: ('Horror', '-', '-').
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CatalogError

Ints = npt.NDArray[np.int32]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Taxonomy:
    """The levels and, for each, its classes; arrays that follow from them are made once.

    >>> ladder = Taxonomy.of(("genre", "theme"), [("Horror", "Zombies"), ("Horror", "Vampires"), ("Drama",)])
    >>> ladder.classes[1]
    (('Drama', '-'), ('Horror', 'Vampires'), ('Horror', 'Zombies'))
    >>> ladder.parents[1].tolist(), ladder.paths.tolist()
    ([0, 1, 1], [[0, 0], [1, 1], [1, 2]])
    >>> ladder.path_names(0), ladder.path_names(2)
    (['Drama'], ['Horror', 'Zombies'])
    """

    levels: tuple[str, ...]
    classes: tuple[tuple[Path, ...], ...]  # per level, sorted full paths; a path of level k has k + 1 names
    stop_label: str

    @classmethod
    def of(cls, levels: Sequence[str], paths: Iterable[Sequence[str]], *, stop_label: str = "-") -> Taxonomy:
        """Return the taxonomy in which exactly these paths, and the ways to them, are legal.

        A class without a child gets a stop below it, so every class stands on a legal path.
        Raises CatalogError for a path that is empty, too long, or goes on below a stop.
        """
        seen: list[set[Path]] = [set() for _ in levels]
        for path in map(tuple, paths):
            if not 0 < len(path) <= len(levels):
                raise CatalogError(f"path {list(path)}: {len(path)} names for {len(levels)} levels")
            if stop_label in path and set(path[path.index(stop_label) :]) != {stop_label}:
                raise CatalogError(f"path {list(path)}: goes on below the stop label '{stop_label}'")
            for depth in range(len(path)):
                seen[depth].add(path[: depth + 1])
        for upper, lower in pairwise(seen):
            lower.update((*path, stop_label) for path in upper - {child[:-1] for child in lower})
        return cls(tuple(levels), tuple(tuple(sorted(level)) for level in seen), stop_label)

    @classmethod
    def learn(cls, levels: Sequence[str], columns: Sequence[Any], stop_label: str) -> Taxonomy:
        """Return the taxonomy of the labels in the columns (string arrays, one a level; null is unknown).

        A label below an unknown label says nothing and is passed over.
        """
        names = [str(k) for k in range(len(levels))]
        distinct = pa.table(list(columns), names=names).group_by(names).aggregate([])
        rows = zip(*(distinct[name].to_pylist() for name in names), strict=True)
        known = (row[: row.index(None)] if None in row else row for row in rows)
        return cls.of(levels, (path for path in known if path), stop_label=stop_label)

    @classmethod
    def read(
        cls,
        file: str,
        *,
        levels: Sequence[str],
        columns: Sequence[str],
        stop_label: str,
        expected: str | None = None,
    ) -> Taxonomy:
        """Return the taxonomy that a file declares: a path a row, its names in the columns, one a level.

        Rows may repeat; an empty name ends a path. Raises CatalogError that names file, line and reason.
        """
        from pipeline.labels import check_labels
        from pipeline.readers import LINE, read_columns

        table = read_columns(file, columns=columns, expected=expected)
        checked = check_labels(levels, [table[name] for name in columns], stop_label=stop_label)
        wrong = pc.indices_nonzero(pc.is_valid(checked.reasons))
        if len(wrong):
            rows = table.select([LINE, *columns]).take(wrong[:3]).to_pylist()
            named = ", ".join(f"line {row.pop(LINE)} {list(row.values())}" for row in rows)
            line, reason = table[LINE][wrong[0].as_py()], checked.reasons[wrong[0].as_py()]
            raise CatalogError(
                f"{file} line {line}: {reason}; mend the declared taxonomy ({len(wrong)} such rows: {named})"
            )
        taxonomy = cls.learn(levels, checked.columns, stop_label)
        if not taxonomy.classes[0]:
            raise CatalogError(f"{file}: declares no path; give a row a path, or empty [catalog] taxonomy to learn it")
        return taxonomy

    @property
    def n_classes(self) -> tuple[int, ...]:
        """Return the number of classes of each level, stops among them."""
        return tuple(len(level) for level in self.classes)

    @cached_property
    def parents(self) -> tuple[Ints, ...]:
        """Return for each level the index of each class's parent, (n_classes,); empty for the top level."""
        above = [{path: index for index, path in enumerate(level)} for level in self.classes]
        below = zip(above, self.classes[1:], strict=False)
        return (
            np.empty(0, np.int32),
            *(np.array([index[path[:-1]] for path in level], np.int32) for index, level in below),
        )

    @cached_property
    def paths(self) -> Ints:
        """Return every legal path as class indices, (n_paths, n_levels), in the order of the last level's classes."""
        columns = [np.arange(len(self.classes[-1]), dtype=np.int32)]
        for parents in reversed(self.parents[1:]):
            columns.append(parents[columns[-1]])
        return np.stack(columns[::-1], axis=1)

    def encode(self, columns: Sequence[Any]) -> Ints:
        """Return class indices of labels (string arrays, one a level), (n_items, n_levels); -1 is unknown.

        Unknown is an empty label, one below an unknown label, and a path that the taxonomy does not have.
        Below a stop an empty label is a stop too.
        """
        codes = np.full((len(columns[0]), len(self.levels)), -1, np.int32)
        above = np.zeros(len(columns[0]), np.int64)
        for level, (column, classes, parents) in enumerate(zip(columns, self.classes, self._parents, strict=True)):
            names = sorted({path[-1] for path in classes})
            labels = _flat(column)
            if level:
                stopped = np.append(self._is_stop(level - 1), False)[above]
                labels = pc.if_else(pa.array(stopped), self.stop_label, labels)
            spelt = pc.fill_null(pc.index_in(labels, pa.array(names, pa.string())), -1).to_numpy(zero_copy_only=False)
            index = {name: position for position, name in enumerate(names)}
            keys = parents.astype(np.int64) * len(names) + np.array([index[path[-1]] for path in classes], np.int64)
            wanted = above * len(names) + spelt
            place = np.searchsorted(keys, wanted)
            found = (spelt >= 0) & (above >= 0) & (place < len(keys))
            found[found] = keys[place[found]] == wanted[found]
            codes[found, level] = place[found]
            above = codes[:, level].astype(np.int64)
        return codes

    @property
    def names(self) -> list[str]:
        """Return the names of all labels, each once, sorted; the stop is none."""
        return sorted({path[-1] for level in self.classes for path in level} - {self.stop_label})

    def name(self, level: int, index: int) -> str | None:
        """Return the label of a class, or None for a stop."""
        name = self.classes[level][index][-1]
        return None if name == self.stop_label else name

    def path_names(self, path: int) -> list[str]:
        """Return the labels of a legal path from the top to where it stops."""
        return [name for name in self.classes[-1][path] if name != self.stop_label]

    def to_json(self) -> str:
        """Return the taxonomy as text, the same for equal taxonomies."""
        fields = {"levels": self.levels, "stop_label": self.stop_label, "paths": self.classes[-1]}
        return json.dumps(fields, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Taxonomy:
        """Return the taxonomy of `to_json`; raises CatalogError for any other text."""
        try:
            fields = json.loads(text)
            return cls.of(fields["levels"], fields["paths"], stop_label=fields["stop_label"])
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogError(f"not a taxonomy: {error!r}; it is written by stage 1 as taxonomy.json") from None

    @property
    def _parents(self) -> tuple[Ints, ...]:
        """Return the parents, with one common parent above the top level."""
        return (np.zeros(len(self.classes[0]), np.int32), *self.parents[1:])

    def _is_stop(self, level: int) -> npt.NDArray[np.bool_]:
        return np.array([path[-1] == self.stop_label for path in self.classes[level]], np.bool_)


def _flat(column: Any) -> Any:
    """Return a string column as one array."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.cast(column, pa.string())
