"""Experts behind a gate: for each item the k of them with the largest gate logits decide, the others count for nothing.

Every expert is computed for every item, side by side in one product; those left out are then multiplied by exactly 0.
Source: Shazeer et al. 2017, arXiv 1701.06538 (top-k gating and the balance of importance; without the noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import ops
from pipeline.errors import ModelError
from pipeline.initial import Rng, filled, glorot
from pipeline.ops import Array

if TYPE_CHECKING:
    from pipeline.steps import Inputs, Network


@dataclass(frozen=True)
class TopKGate:
    """The weights of an item's experts: a softmax over its k largest gate logits, exactly zero for all others.

    With top_k = 1 the chosen weight is always 1, and the gate stays as it was drawn.
    """

    weight: Array  # (n_in, n_experts)
    top_k: int

    @classmethod
    def initialise(cls, n_in: int, n_experts: int, *, top_k: int, rng: Rng) -> TopKGate:
        """Return Glorot-uniform weights: from zeros every item would tie for the first experts."""
        return cls(glorot((n_in, n_experts), rng), top_k)

    def __call__(self, x: Array) -> Array:
        """Return the weights, (n, n_experts); ties go to the lower index, gradients to the kept experts only."""
        return exponential(self.log_weights(x))

    def log_weights(self, x: Array) -> Array:
        """Return the logarithms of the weights, (n, n_experts); minus infinity for the experts left out."""
        o = ops.of(self.weight, x)
        return o.log_softmax(o.keep_topk(o.dot(x, self.weight), self.top_k))


def exponential(x: Array) -> Array:
    """Return exp(x); 0 for minus infinity."""
    return ops.of(x).exp(x)


def imbalance(weights: Array) -> Array:
    """Return the squared coefficient of variation of the experts' importance, the sums of their weights; a scalar.

    weights are (n, n_experts). It is 0 where all experts count the same, n_experts - 1 where one has everything.

    >>> float(imbalance(np.array([[0.5, 0.5], [0.0, 1.0]])))
    0.25
    """
    o = ops.of(weights)
    importance = o.sum(weights, axis=0)
    mean = o.mean(importance)
    deviation = importance - mean
    return o.mean(deviation * deviation) / (mean * mean)


@dataclass(frozen=True)
class MixtureOfExperts:
    """Hidden layers side by side, relu(x W_e + b_e), added up by the weights of a gate."""

    weight: Array  # (n_in, n_experts * n_out): the columns of expert 0, of expert 1, ...
    bias: Array  # (n_experts * n_out,)
    n_experts: int

    @classmethod
    def initialise(cls, n_in: int, n_out: int, *, n_experts: int, rng: Rng) -> MixtureOfExperts:
        """Return Glorot-uniform weights an expert, and zero bias."""
        weight = glorot((n_in, n_out), rng, n_blocks=n_experts)
        return cls(weight, filled((n_experts * n_out,), 0, rng), n_experts)

    def __call__(self, x: Array, gate: Array) -> Array:
        """Return the sum over e of gate[:, e] * relu(x W_e + b_e), (n, n_out); gate is (n, n_experts)."""
        o = ops.of(self.weight, x)
        units = o.relu(o.dot(x, self.weight) + self.bias)
        return o.sum(_by_expert(units, self.n_experts) * gate[:, :, None], axis=1)


@dataclass(frozen=True)
class MixtureOfHeads:
    """Experts that predict the classes of a level themselves: the gate blends their probabilities, not their logits."""

    weight: Array  # (n_in, n_experts * n_classes): the columns of expert 0, of expert 1, ...
    bias: Array  # (n_experts * n_classes,)
    n_experts: int

    @classmethod
    def initialise(cls, n_in: int, n_classes: int, *, n_experts: int, rng: Rng) -> MixtureOfHeads:
        """Return Glorot-uniform weights an expert, and zero bias."""
        weight = glorot((n_in, n_classes), rng, n_blocks=n_experts)
        return cls(weight, filled((n_experts * n_classes,), 0, rng), n_experts)

    def __call__(self, x: Array, log_gate: Array) -> Array:
        """Return log(sum over e of gate[:, e] * softmax(x W_e + b_e)), (n, n_classes).

        log_gate is (n, n_experts), minus infinity for an expert that is left out.
        """
        o = ops.of(self.weight, x)
        logits = o.dot(x, self.weight) + self.bias
        rows = logits.reshape((logits.shape[0] * self.n_experts, self.bias.shape[0] // self.n_experts))
        opinions = _by_expert(o.log_softmax(rows).reshape(logits.shape), self.n_experts)
        return o.log_sum_exp(opinions + log_gate[:, :, None], axis=1)


def _by_expert(x: Array, n_experts: int) -> Array:
    """Return (n, n_experts * m) as (n, n_experts, m)."""
    return x.reshape((x.shape[0], n_experts, x.shape[1] // n_experts))


def expert_shares(network: Network, inputs: Inputs) -> Array:
    """Return for each expert the share of the items on which it has a say, float64 (n_experts,); they sum to top_k.

    Of a network of arrays; zeros where there are no items. Raises ModelError for a network without a gate.
    """
    if "gate" not in network.names:
        raise ModelError("the network has no gate; set [network] experts")
    decides = network["gate"](inputs) > 0
    return decides.sum(axis=0) / np.float64(max(1, len(decides)))
