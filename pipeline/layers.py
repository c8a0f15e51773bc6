"""The layers: each is a frozen dataclass of its parameters with `__call__`, written once over `ops`.

Arrays in, values out; shared variables of an engine in, a graph out. Fields that are arrays are
parameters, fields that are layers hold theirs, all other fields are configuration. `initialise` draws
the parameters; with `rng=None` they are blank (zeros that take no memory), to be replaced on loading.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import ops
from pipeline.initial import Rng, filled, glorot, normal
from pipeline.norms import BatchNorm, LayerNorm
from pipeline.ops import Array

__all__ = ["BatchNorm", "Dense", "GRUCell", "Hidden", "LayerNorm", "Softmax", "SparseProjection", "TagMean"]


@dataclass(frozen=True)
class TagMean:
    """The mean embedding of an item's tags."""

    weight: Array  # (n_vocabulary, n_hidden); row 0 is padding and stays zero

    @classmethod
    def initialise(cls, n_vocabulary: int, n_hidden: int, *, rng: Rng) -> TagMean:
        """Return embeddings drawn from a normal distribution of deviation 0.1, and a padding row of zeros."""
        weight = normal((n_vocabulary, n_hidden), rng)
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
        return cls(normal((n_features, n_hidden), rng))

    @classmethod
    def zeros(cls, n_features: int, n_out: int, *, rng: Rng) -> SparseProjection:
        """Return weights of zero: for a path straight to logits, where a draw would be noise."""
        return cls(filled((n_features, n_out), 0, rng))

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
        return cls(glorot((n_in, n_out), rng), filled((n_out,), 0, rng))

    def __call__(self, x: Array) -> Array:
        """Return x @ weight + bias, (n, n_out)."""
        return ops.of(self.weight, x).dot(x, self.weight) + self.bias


@dataclass(frozen=True)
class Hidden:
    """relu(norm(sum of the inputs + bias)): where tags, sparse features and dense columns meet."""

    bias: Array  # (n_hidden,)
    norm: LayerNorm | BatchNorm | None

    @classmethod
    def initialise(cls, n_hidden: int, *, norm: str = "layer", rng: Rng) -> Hidden:
        """Return a layer of zero bias; norm is 'layer', 'batch' or 'none'."""
        kind = {"layer": LayerNorm, "batch": BatchNorm, "none": None}[norm]
        return cls(filled((n_hidden,), 0, rng), None if kind is None else kind.initialise(n_hidden, rng=rng))

    def __call__(self, *inputs: Array, training: bool = False) -> Array:
        """Return the hidden units, (n, n_hidden); every input is (n, n_hidden)."""
        total = self.total(*inputs)
        if isinstance(self.norm, BatchNorm):
            total = self.norm(total, training=training)
        elif self.norm is not None:
            total = self.norm(total)
        return ops.of(total).relu(total)

    def total(self, *inputs: Array) -> Array:
        """Return the sum of the inputs and the bias, (n, n_hidden)."""
        total = self.bias
        for x in inputs:
            total = total + x
        return total

    def statistics(self, *inputs: Array) -> dict[str, Array]:
        """Return the running statistics after a training step on these inputs, by name; none without BatchNorm."""
        if not isinstance(self.norm, BatchNorm):
            return {}
        return {f"norm.{name}": value for name, value in self.norm.statistics(self.total(*inputs)).items()}


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
        weight = glorot((n_in, n_state), rng, n_blocks=3)
        recurrent = glorot((n_state, n_state), rng, n_blocks=2)
        norm = LayerNorm.initialise(n_state, rng=rng)
        candidate = glorot((n_state, n_state), rng)
        return cls(weight, filled((3 * n_state,), 0, rng), recurrent, candidate, norm, n_state)

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
