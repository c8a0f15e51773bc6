"""The layers that bring units to mean 0 and variance 1: of a row, or of a column over the batch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import ops
from pipeline.initial import Rng, filled
from pipeline.ops import Array


@dataclass(frozen=True)
class LayerNorm:
    """Each row brought to mean 0 and variance 1, then scaled and moved. Source: Ba et al. 2016, arXiv 1607.06450."""

    gain: Array  # (n,)
    bias: Array  # (n,)
    epsilon: float = 1e-5  # added to the variance, so that a row of equal values gives the bias

    @classmethod
    def initialise(cls, n: int, *, rng: Rng) -> LayerNorm:
        """Return gain 1 and bias 0."""
        return cls(filled((n,), 1, rng), filled((n,), 0, rng))

    def __call__(self, x: Array) -> Array:
        """Return gain * (x - mean) / sqrt(variance + epsilon) + bias of each row, (n_rows, n)."""
        o = ops.of(self.gain, x)
        centred = x - o.mean(x, axis=1, keepdims=True)
        variance = o.mean(centred * centred, axis=1, keepdims=True)
        return centred / o.sqrt(variance + o.constant(self.epsilon, x)) * self.gain + self.bias


@dataclass(frozen=True)
class BatchNorm:
    """Each column brought to mean 0 and variance 1: over the batch in training, by running statistics afterwards.

    Source: Ioffe and Szegedy 2015, arXiv 1502.03167. Mean and variance are parameters that no gradient changes:
    a training step of n rows moves them (1 - 1/n) of a tenth of the way to those of its batch, so that the rest of an
    epoch, which may be a single row without any variance, does not spoil them.
    """

    gain: Array  # (n,)
    bias: Array  # (n,)
    mean: Array  # (n,); running
    variance: Array  # (n,); running, of the population (divided by n_rows)
    momentum: float = 0.9  # share of the running statistics that a step of many rows keeps
    epsilon: float = 1e-5  # added to the variance, so that a column of equal values gives the bias

    @classmethod
    def initialise(cls, n: int, *, rng: Rng) -> BatchNorm:
        """Return gain 1 and bias 0, running mean 0 and variance 1."""
        return cls(filled((n,), 1, rng), filled((n,), 0, rng), filled((n,), 0, rng), filled((n,), 1, rng))

    def __call__(self, x: Array, *, training: bool = False) -> Array:
        """Return gain * (x - mean) / sqrt(variance + epsilon) + bias of each column, (n_rows, n)."""
        o = ops.of(self.gain, x)
        mean, variance = self._of_batch(x) if training else (self.mean, self.variance)
        return (x - mean) / o.sqrt(variance + o.constant(self.epsilon, x)) * self.gain + self.bias

    def statistics(self, x: Array) -> dict[str, Array]:
        """Return the running mean and variance after a training step on x (n_rows, n), by name, (n,) each."""
        o = ops.of(self.mean, x)
        one = o.constant(1, x)
        moved = o.constant(1 - self.momentum, x) * (one - one / o.cast(x.shape[0], x))
        mean, variance = self._of_batch(x)
        return {
            "mean": self.mean + moved * (mean - self.mean),
            "variance": self.variance + moved * (variance - self.variance),
        }

    @staticmethod
    def _of_batch(x: Array) -> tuple[Array, Array]:
        """Return mean and variance of each column, (n,) each."""
        o = ops.of(x)
        mean = o.mean(x, axis=0)
        centred = x - mean
        return mean, o.mean(centred * centred, axis=0)
