"""The layers: each is a frozen dataclass of its parameters with `__call__`, written once over `ops`.

Arrays in, values out; shared variables of an engine in, a graph out. Fields that are arrays are
parameters, fields that are layers hold theirs, all other fields are configuration. `initialise` draws
the parameters; with `rng=None` they are blank (zeros that take no memory), to be replaced on loading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline import ops
from pipeline.ops import Array

Rng = np.random.Generator | None


@dataclass(frozen=True)
class TagMean:
    """The mean embedding of an item's tags."""

    weight: Array  # (n_vocabulary, n_hidden); row 0 is padding and stays zero

    @classmethod
    def initialise(cls, n_vocabulary: int, n_hidden: int, *, rng: Rng) -> TagMean:
        """Return embeddings drawn from a normal distribution of deviation 0.1, and a padding row of zeros."""
        weight = _normal((n_vocabulary, n_hidden), rng)
        if rng is not None:
            weight[0] = 0
        return cls(weight)

    def __call__(self, tag_index: Array) -> Array:
        """Return the mean embedding of each row's tags, (n, n_hidden); a row without tags gives zeros.

        tag_index is int32 (n, n_tags); 0 is padding, in any position, and never contributes; a repeated
        tag counts each time. Raises FeatureError for an index outside the table (on arrays; the loader
        checks before a graph runs).
        """
        o = ops.of(self.weight, tag_index)
        mask = o.cast(tag_index > 0, self.weight)
        n_tags = o.maximum(o.sum(mask, axis=1, keepdims=True), 1)
        return o.sum_rows(self.weight, tag_index, mask) / n_tags


@dataclass(frozen=True)
class SparseProjection:
    """A linear map of sparse features; a dense input takes the dense product."""

    weight: Array  # (n_features, n_hidden)

    @classmethod
    def initialise(cls, n_features: int, n_hidden: int, *, rng: Rng) -> SparseProjection:
        """Return weights drawn from a normal distribution of deviation 0.1."""
        return cls(_normal((n_features, n_hidden), rng))

    def __call__(self, features: Array) -> Array:
        """Return features @ weight, (n, n_hidden), dense; features are (n, n_features), CSC in graphs."""
        return ops.of(self.weight, features).dot(features, self.weight)


@dataclass(frozen=True)
class Dense:
    """A linear map with bias."""

    weight: Array  # (n_in, n_out)
    bias: Array  # (n_out,)

    @classmethod
    def initialise(cls, n_in: int, n_out: int, *, rng: Rng) -> Dense:
        """Return Glorot-uniform weights and zero bias."""
        return cls(_glorot((n_in, n_out), rng), _filled((n_out,), 0, rng))

    def __call__(self, x: Array) -> Array:
        """Return x @ weight + bias, (n, n_out)."""
        return ops.of(self.weight, x).dot(x, self.weight) + self.bias


@dataclass(frozen=True)
class LayerNorm:
    """Each row brought to mean 0 and variance 1, then scaled and moved. Source: Ba et al. 2016, arXiv 1607.06450."""

    gain: Array  # (n,)
    bias: Array  # (n,)
    epsilon: float = 1e-5  # added to the variance, so that a row of equal values gives the bias

    @classmethod
    def initialise(cls, n: int, *, rng: Rng) -> LayerNorm:
        """Return gain 1 and bias 0."""
        return cls(_filled((n,), 1, rng), _filled((n,), 0, rng))

    def __call__(self, x: Array) -> Array:
        """Return gain * (x - mean) / sqrt(variance + epsilon) + bias of each row, (n_rows, n)."""
        o = ops.of(self.gain, x)
        centred = x - o.mean(x, axis=1, keepdims=True)
        variance = o.mean(centred * centred, axis=1, keepdims=True)
        return centred / o.sqrt(variance + o.constant(self.epsilon, x)) * self.gain + self.bias


@dataclass(frozen=True)
class Hidden:
    """relu(layer_norm(sum of the inputs + bias)): where tags, sparse features and dense columns meet."""

    bias: Array  # (n_hidden,)
    norm: LayerNorm

    @classmethod
    def initialise(cls, n_hidden: int, *, rng: Rng) -> Hidden:
        """Return a layer of zero bias."""
        return cls(_filled((n_hidden,), 0, rng), LayerNorm.initialise(n_hidden, rng=rng))

    def __call__(self, *inputs: Array) -> Array:
        """Return the hidden units, (n, n_hidden); every input is (n, n_hidden)."""
        total = self.bias
        for x in inputs:
            total = total + x
        return ops.of(total).relu(self.norm(total))


@dataclass(frozen=True)
class GRUCell:
    """A gated recurrent unit whose candidate is relu(layer_norm(.)), stepped once a level with the same input.

    reset = sigmoid(x W_r + s U_r + b_r), update = sigmoid(x W_u + s U_u + b_u),
    candidate = relu(layer_norm(x W_c + (reset * s) U_c + b_c)), new s = s + update * (candidate - s).
    Source: Cho et al. 2014, arXiv 1406.1078; the feedback over levels: Zamir et al. 2017, arXiv 1612.09508.
    """

    weight: Array  # (n_in, 3 * n_state): columns of reset, update, candidate
    bias: Array  # (3 * n_state,)
    recurrent: Array  # (n_state, 2 * n_state): columns of reset, update
    recurrent_candidate: Array  # (n_state, n_state)
    norm: LayerNorm
    n_state: int

    @classmethod
    def initialise(cls, n_in: int, n_state: int, *, rng: Rng) -> GRUCell:
        """Return Glorot-uniform weights a gate, zero bias."""
        weight = np.concatenate([_glorot((n_in, n_state), rng) for _ in range(3)], axis=1)
        recurrent = np.concatenate([_glorot((n_state, n_state), rng) for _ in range(2)], axis=1)
        norm = LayerNorm.initialise(n_state, rng=rng)
        candidate = _glorot((n_state, n_state), rng)
        return cls(weight, _filled((3 * n_state,), 0, rng), recurrent, candidate, norm, n_state)

    def __call__(self, x: Array, state: Array | None = None) -> Array:
        """Return the next state, (n, n_state), from input x (n, n_in); state None stands for zeros."""
        projected = self.project(x)
        return self.start(projected) if state is None else self.step(projected, state)

    def project(self, x: Array) -> Array:
        """Return the input's part of gates and candidate, (n, 3 * n_state): the same at every step, so taken once."""
        return ops.of(self.weight, x).dot(x, self.weight) + self.bias

    def start(self, projected: Array) -> Array:
        """Return the state after a zero state: without the recurrent products and the reset gate, which give zeros."""
        o = ops.of(projected)
        n = self.n_state
        update = o.sigmoid(projected[:, n : 2 * n])
        return update * o.relu(self.norm(projected[:, 2 * n :]))

    def step(self, projected: Array, state: Array) -> Array:
        """Return the state after `state`."""
        o = ops.of(projected, state)
        n = self.n_state
        gates = o.sigmoid(projected[:, : 2 * n] + o.dot(state, self.recurrent))
        reset, update = gates[:, :n], gates[:, n:]
        candidate = o.relu(self.norm(projected[:, 2 * n :] + o.dot(reset * state, self.recurrent_candidate)))
        return state + update * (candidate - state)


@dataclass(frozen=True)
class Softmax:
    """The log-probabilities of logits; it has no parameters."""

    def __call__(self, logits: Array) -> Array:
        """Return log(softmax(logits)) of each row, (n, n_classes)."""
        return ops.of(logits).log_softmax(logits)


def _normal(shape: tuple[int, ...], rng: Rng) -> Array:
    """Return float32 draws of deviation 0.1; blank without rng."""
    return _blank(shape) if rng is None else rng.standard_normal(shape, np.float32) * np.float32(0.1)


def _glorot(shape: tuple[int, int], rng: Rng) -> Array:
    """Return float32 draws, uniform within sqrt(6 / (n_in + n_out)); blank without rng. Source: Glorot, Bengio 2010."""
    if rng is None:
        return _blank(shape)
    bound = np.sqrt(6 / sum(shape))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _filled(shape: tuple[int, ...], value: float, rng: Rng) -> Array:
    return _blank(shape) if rng is None else np.full(shape, value, np.float32)


def _blank(shape: tuple[int, ...]) -> Array:
    """Return zeros of any shape in four bytes of memory."""
    return np.broadcast_to(np.float32(0), shape)
