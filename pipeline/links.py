"""The layers by which a level hears of the level above, and what is added to its logits."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import ops
from pipeline.initial import Rng, normal
from pipeline.ops import Array


@dataclass(frozen=True)
class Sum:
    """The sum of its inputs; it has no parameters."""

    def __call__(self, *inputs: Array) -> Array:
        """Return the sum, in the shape of the inputs."""
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


@dataclass(frozen=True)
class LabelFeedback:
    """What is known of the level above, added to the input of the next step: the expected embedding of its label."""

    weight: Array  # (n_classes of the level above, n_hidden)

    @classmethod
    def initialise(cls, n_classes: int, n_hidden: int, *, rng: Rng) -> LabelFeedback:
        """Return embeddings drawn from a normal distribution of deviation 0.1."""
        return cls(normal((n_classes, n_hidden), rng))

    def __call__(self, hidden: Array, log_probabilities: Array) -> Array:
        """Return hidden + exp(log_probabilities) @ weight, (n, n_hidden)."""
        o = ops.of(self.weight, hidden)
        return hidden + o.dot(o.exp(log_probabilities), self.weight)


@dataclass(frozen=True)
class ParentMask:
    """The log-probability of each class's parent: added to the logits, it masks what the level above rules out.

    It is part of the network, in training as in scoring: the exported network computes what was trained.
    """

    parents: tuple[int, ...]  # for each class its parent's index in the level above

    def __call__(self, log_probabilities: Array) -> Array:
        """Return log_probabilities (n, n_classes of the level above) of each class's parent, (n, n_classes)."""
        return ops.of(log_probabilities).take_columns(log_probabilities, self.parents)
