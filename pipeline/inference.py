"""Stage 5: a folded network (folding.py) over many items: the logits of its layers to 1e-6, several times faster.

512 rows at a time, in arrays that stay in the processor's cache, units by rows: products that add to what is there
(SciPy's sgemm), and elements in place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import sgemm, sgemv

from pipeline.errors import ModelError
from pipeline.folding import (
    ROWS,
    Floats,
    Head,
    Heads,
    Level,
    by_rows,
    centred,
    level_of,
    own,
    projection_of,
    variance_of,
)
from pipeline.layers import Dense, LayerNorm
from pipeline.network import FeedbackNetwork, Inputs
from pipeline.ops.numeric import check_index
from pipeline.sparse import csr

_ONE = np.float32(1)


class Plan:
    """A network's weights, folded. A plan may be used by several threads: each has arrays of its own."""

    def __init__(self, network: FeedbackNetwork) -> None:
        hidden, cell = network.hidden, network.cell
        assert isinstance(hidden.norm, LayerNorm)
        assert cell is not None, "folds() was not asked"
        gain = hidden.norm.gain.astype(np.float64)
        tables = [network.tags.weight, *([] if network.features is None else [network.features.weight])]
        self.table = np.concatenate([centred(table, gain) for table in tables])  # (n_vocabulary + n_features, n)
        self.n_vocabulary = len(network.tags.weight)
        self.dense = None if network.dense is None else centred(network.dense.weight, gain)
        bias = hidden.bias.astype(np.float64) + (0 if network.dense is None else network.dense.bias)
        self.bias = by_rows(centred(bias, gain))
        self.norm_bias = by_rows(hidden.norm.bias)
        self.variance = variance_of(gain)
        self.epsilon = np.float32(hidden.norm.epsilon)
        self.project = projection_of(cell)  # (3 * n, n + 1), the bias last
        self.levels = tuple(level_of(cell, head, k) for k, head in enumerate(network.heads) if isinstance(head, Dense))
        self.wide = None if network.wide is None else network.wide.weight  # (n_features, all classes)
        self._local = threading.local()

    def blocks(self, inputs: Inputs, heads: Heads, *, size: int) -> Iterator[tuple[slice, list[Floats]]]:
        """Yield rows, and what each of the heads gives for them, (ROWS, width), until the next are asked for.

        `size` rows make a pass, which has whole blocks: the last one's rows may be fewer, the rest is of no item. Last
        bits change with the place in a block, so a row's do not change where items are cut by whole passes.
        Raises FeatureError for an index outside the table.
        """
        sums = self._sums(self.bag(inputs))
        wide = [None if head.wide is None else _given(inputs.features) @ head.wide for head in heads]
        for start, stop in cuts(len(sums), size):
            rows = slice(start, stop)
            block = _filled(sums[rows])
            if self.dense is not None:
                block += _filled(_given(inputs.dense)[rows]) @ self.dense
            found = self.outputs(block, heads)
            for values, more in zip(found, wide, strict=True):
                if more is not None:
                    values[: stop - start] += more[rows]
            yield rows, found

    def bag(self, inputs: Inputs) -> Any:
        """Return tags, each counting one n-th, and features as one CSR matrix (n_items, n_vocabulary + n_features)."""
        index = inputs.tag_index
        check_index(index, n_rows=self.n_vocabulary)
        n_tags = np.count_nonzero(index, axis=1)
        shares = np.repeat((1 / np.maximum(n_tags, 1)).astype(np.float32), n_tags)
        tags = index[index > 0]
        if len(self.table) == self.n_vocabulary:
            return csr(shares, tags, np.concatenate([[0], np.cumsum(n_tags)]), n_columns=len(self.table))
        features = _given(inputs.features).tocsr()
        parts = np.stack([n_tags, np.diff(features.indptr)], axis=1)
        is_tag = np.repeat(np.tile([True, False], len(index)), parts.ravel())
        columns, values = np.empty(len(is_tag), np.int32), np.empty(len(is_tag), np.float32)
        columns[is_tag], values[is_tag] = tags, shares
        columns[~is_tag], values[~is_tag] = features.indices + np.int32(self.n_vocabulary), features.data
        indptr = np.concatenate([[0], np.cumsum(parts.sum(axis=1))])
        return csr(values, columns, indptr, n_columns=len(self.table))

    def _sums(self, bag: Any) -> Floats:
        """Return the sums of tags and features, (n_items, n)."""
        sums: Floats = bag @ self.table
        return sums

    def outputs(self, sums: Floats, heads: Heads) -> list[Floats]:
        """Return what the heads give, (ROWS, width) each, of the sums of tags and features, (ROWS, n), changed.

        The arrays are this thread's own and are written over by its next call.
        """
        space = self._space()
        _hidden(self, sums, space)
        sgemm(1.0, space.hidden.T, self.project.T, trans_a=1, c=space.projected.T, overwrite_c=1)
        for k, level in enumerate(self.levels):
            if k == 0:
                _start(level, space)
            else:
                _step(level, space, k)
        found = []
        for head in heads:
            out, states = space.output(head), space.states[head.first : head.first + len(head.weight)]
            sgemm(1.0, head.weight.T, states.T, trans_b=1, c=out.T, overwrite_c=1)
            found.append(out)
        return found

    def level_heads(self) -> Heads:
        """Return the heads of the levels: they give logits."""
        size, parts = self.table.shape[1] + 1, self._wide_parts()
        return [Head(k * size, level.head, parts[k]) for k, level in enumerate(self.levels)]

    def path_head(self, paths: npt.NDArray[np.int32], temperatures: Sequence[float]) -> Head:
        """Return the head that gives the scores of paths, (n_paths, n_levels): sums of logits over temperatures."""
        columns = list(zip(paths.T, temperatures, strict=True))
        heads = zip(self.levels, columns, strict=True)
        weight = np.concatenate([level.head[:, classes] / heat for level, (classes, heat) in heads])
        wide = [
            np.asarray(part[:, classes] / heat)
            for part, (classes, heat) in zip(self._wide_parts(), columns, strict=True)
            if part is not None
        ]
        return Head(0, own(weight), own(sum(wide)) if wide else None)

    def _wide_parts(self) -> list[Floats | None]:
        """Return the wide path's weights of each level."""
        ends = accumulate((level.head.shape[1] for level in self.levels), initial=0)
        return [None if self.wide is None else self.wide[:, first:last] for first, last in pairwise(ends)]

    def _space(self) -> Space:
        if not hasattr(self._local, "space"):
            self._local.space = Space(self.table.shape[1], len(self.levels))
        space: Space = self._local.space
        return space


class Space:
    """The arrays of a block, made once a thread: (units, ROWS), but for the hidden layer and what precedes it."""

    def __init__(self, n: int, n_levels: int) -> None:
        self.squares, self.no_rows = np.empty((ROWS, n), np.float32), np.zeros((ROWS, n), np.float32)
        self.hidden = np.ones((ROWS, n + 1), np.float32)  # the last column stays 1
        # Of each level in turn, times 2^level, and below it a row that stays 1.
        self.states = np.ones((n_levels * (n + 1), ROWS), np.float32)
        self.last = n_levels - 1
        self.projected = np.empty((3 * n, ROWS), np.float32)  # of the input: reset, update, candidate
        self.gates, self.candidate = np.empty((2 * n, ROWS), np.float32), np.empty((n, ROWS), np.float32)
        self.work, self.zeros = np.empty((n, ROWS), np.float32), np.zeros((n, ROWS), np.float32)
        self._outputs: dict[tuple[int, int], Floats] = {}

    def state(self, k: int) -> Floats:
        """Return the state of level k, from 0."""
        n = len(self.work)
        return self.states[k * (n + 1) : k * (n + 1) + n]

    def output(self, head: Head) -> Floats:
        """Return the array that a head fills."""
        key = (head.first, head.weight.shape[1])
        if key not in self._outputs:
            self._outputs[key] = np.empty((ROWS, head.weight.shape[1]), np.float32)
        return self._outputs[key]


def _hidden(plan: Plan, sums: Floats, space: Space) -> None:
    """Set `space.hidden` to relu(norm(sums + bias))."""
    sums += plan.bias
    np.multiply(sums, sums, out=space.squares)
    scale = sgemv(1.0, space.squares.T, plan.variance, trans=1)
    scale += plan.epsilon
    np.divide(_ONE, np.sqrt(scale, out=scale), out=scale)
    sums *= scale[:, None]
    sums += plan.norm_bias
    np.maximum(sums, space.no_rows, out=space.hidden[:, :-1])


def _start(level: Level, space: Space) -> None:
    """Set the first state: 2 state_1 = (1 + tanh(update)) candidate."""
    n = len(space.work)
    update = np.tanh(space.projected[n : 2 * n], out=space.gates[n:])
    np.copyto(space.candidate, space.projected[2 * n :])
    _norm(space.candidate, level, space)
    update += _ONE
    np.multiply(update, space.candidate, out=space.state(0))


def _step(level: Level, space: Space, k: int) -> None:
    """Set the state of level k; what the input gives is written over at the last level."""
    n, state = len(space.work), space.state(k - 1)
    gates, candidate = space.projected[: 2 * n], space.projected[2 * n :]
    if k < space.last:
        np.copyto(space.gates, gates)
        np.copyto(space.candidate, candidate)
        gates, candidate = space.gates, space.candidate
    sgemm(1.0, state.T, level.recurrent.T, beta=1.0, c=gates.T, overwrite_c=1)
    np.tanh(gates, out=gates)
    reset, update = gates[:n], gates[n:]
    reset += _ONE
    np.multiply(state, reset, out=space.work)
    sgemm(1.0, space.work.T, level.recurrent_candidate.T, beta=1.0, c=candidate.T, overwrite_c=1)
    _norm(candidate, level, space)
    np.add(candidate, state, out=reset)
    candidate -= state
    candidate *= update
    np.add(reset, candidate, out=space.state(k))


def _norm(x: Floats, level: Level, space: Space) -> None:
    """Change centred units, (n, ROWS), to relu(norm(x)), times the level's power of two."""
    np.multiply(x, x, out=space.work)
    scale = sgemv(1.0, space.work.T, level.variance)
    scale += level.epsilon
    x *= np.divide(_ONE, np.sqrt(scale, out=scale), out=scale)
    x += level.bias
    # An array of zeros: NumPy compares with a scalar four times slower.
    np.maximum(x, space.zeros, out=x)


def cuts(n_rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where blocks begin and end: `size` rows, a pass, begin with a new one.

    >>> list(cuts(1400, 600))
    [(0, 512), (512, 600), (600, 1112), (1112, 1200), (1200, 1400)]
    """
    for first in range(0, n_rows, size):
        last = min(first + size, n_rows)
        for start in range(first, last, ROWS):
            yield start, min(start + ROWS, last)


def _given(values: Any) -> Any:
    """Return what the network reads. Raises ModelError where the inputs do not hold it."""
    if values is None:
        raise ModelError("the network reads sparse features or dense columns, and the inputs hold none")
    return values


def _filled(sums: Floats) -> Floats:
    """Return the rows with zeros below, ROWS in all."""
    return sums if len(sums) == ROWS else np.pad(sums, ((0, ROWS - len(sums)), (0, 0)))
