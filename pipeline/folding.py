"""Stage 5: the weights of a feedback network, folded for scoring many items.

What does not depend on the item is done once, on the weights: LayerNorm's centring and gain, the halves of the sigmoid
(1 + tanh(x / 2)) / 2, biases as a last column. States are held times two to the power of their level:

    S_k = 2^k state_k = (C + S) + tanh(update) (C - S),  S = S_(k-1),  C = 2^(k-1) candidate_k

so that no pass over them is spent on halves. Networks with other parts are left to their layers (`folds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.layers import Dense, GRUCell, LayerNorm
from pipeline.network import FeedbackNetwork

Floats = npt.NDArray[np.float32]

ROWS = 512  # of a block: its arrays fill a cache of 1 MB, and every result is made by products of this one shape
MOST_BYTES = 256 << 20  # of the tables: the plan holds a copy of them
SMALLEST_GAIN = 1e-12  # of a LayerNorm: squares of outputs are divided by its square


def folds(network: object) -> bool:
    """Return whether a network is of the kind that can be folded, with tables that may be held twice."""
    if type(network) is not FeedbackNetwork or network.cell is None or network.gate is not None or network.labels:
        return False
    norms = (network.hidden.norm, network.cell.norm)
    if not all(type(norm) is LayerNorm and np.abs(norm.gain).min() > SMALLEST_GAIN for norm in norms):
        return False
    tables = network.tags.weight.nbytes + (0 if network.features is None else network.features.weight.nbytes)
    return not network.config.parent_mask and tables <= MOST_BYTES and len(network.heads) <= 64


class Level(NamedTuple):
    """The weights of a step of the cell and its head, scaled by the powers of two that the states are scaled by."""

    recurrent: Floats  # (2 * n, n): reset, update
    recurrent_candidate: Floats  # (n, n)
    bias: Floats  # (n, ROWS) of the candidate's norm
    variance: Floats  # (n,): what squares count for the variance
    epsilon: np.float32
    head: Floats  # (n + 1, n_classes), the bias last


class Head(NamedTuple):
    """A linear map of the states of some levels."""

    first: int  # row of the states that it begins with
    weight: Floats  # (states, width)
    wide: Floats | None  # (n_features, width): the wide path


Heads = Sequence[Head]


def level_of(cell: GRUCell, head: Dense, k: int) -> Level:
    """Return the weights of level k, from 0: it reads states times 2^k and gives one times 2^(k + 1)."""
    gain = cell.norm.gain.astype(np.float64)
    candidate = centred(cell.recurrent_candidate, gain)
    return Level(
        recurrent=own(cell.recurrent.T * 2.0 ** -(k + 1)),
        recurrent_candidate=own(candidate.T * 2.0 ** -(k + 1)),
        bias=own(np.repeat(cell.norm.bias[:, None], ROWS, axis=1) * 2.0**k),
        variance=variance_of(gain) * np.float32(4.0**-k),
        epsilon=np.float32(cell.norm.epsilon * 4.0**-k),
        head=own(np.concatenate([head.weight * 2.0 ** -(k + 1), head.bias[None]])),
    )


def projection_of(cell: GRUCell) -> Floats:
    """Return what the input is multiplied by, bias last: halves for the gates, centred for the candidate."""
    weight = np.concatenate([cell.weight, cell.bias[None]]).astype(np.float64)
    gates = 2 * cell.n_state
    candidate = centred(weight[:, gates:], cell.norm.gain.astype(np.float64))
    return own(np.concatenate([weight[:, :gates] / 2, candidate], axis=1).T)


def centred(weight: Any, gain: Any) -> Floats:
    """Return weights whose outputs come out with mean 0, times the gain: float32 from sums in float64.

    >>> centred(np.array([[1.0, 3.0]]), np.array([1.0, 2.0]))
    array([[-1.,  2.]], dtype=float32)
    """
    means = weight.mean(axis=-1, keepdims=True, dtype=np.float64)
    return np.asarray((weight - means) * gain, np.float32)


def variance_of(gain: Any) -> Floats:
    """Return what each square counts for the variance of units that come times the gain, (n,)."""
    return np.asarray(1 / (len(gain) * gain**2), np.float32)


def by_rows(values: Any) -> Floats:
    """Return a row as often as a block has rows: NumPy adds a whole array faster than one row to each."""
    return np.repeat(np.asarray(values, np.float32)[None], ROWS, axis=0)


def own(values: Any) -> Floats:
    """Return float32 in C order, which the products need: of anything else they would make copies."""
    return np.ascontiguousarray(values, np.float32)
