"""The feedback network: one hidden layer, a recurrent state stepped once a level, a softmax a level.

The idea of Zamir et al. 2017 (arXiv 1612.09508), over levels of labels instead of images of growing detail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline import parameters
from pipeline.errors import ModelError
from pipeline.layers import Dense, GRUCell, Hidden, Softmax, SparseProjection, TagMean
from pipeline.ops import Array


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes that make a network."""

    n_vocabulary: int  # ids of tags, the padding row included
    n_features: int  # columns of the sparse features; 0: none
    n_dense: int  # dense columns; 0: none
    hidden: int
    n_classes: tuple[int, ...]  # classes of each level, top first

    def __post_init__(self) -> None:
        sizes = (self.n_vocabulary, self.hidden, *self.n_classes)
        if not self.n_classes or min(sizes) < 1 or min(self.n_features, self.n_dense) < 0:
            raise ModelError(f"{self}: a network needs a vocabulary, a hidden layer and a class at every level")

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return {**asdict(self), "n_classes": list(self.n_classes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkConfig:
        """Return the configuration that `to_json` gave.

        >>> config = NetworkConfig(n_vocabulary=5, n_features=0, n_dense=0, hidden=2, n_classes=(2, 3))
        >>> NetworkConfig.from_json(config.to_json()) == config
        True
        """
        return cls(**{**data, "n_classes": tuple(data["n_classes"])})


@dataclass(frozen=True)
class Inputs:
    """What the network reads of n items: arrays, or an engine's variables."""

    tag_index: Array  # int32 (n, n_tags); 0 pads, in any position
    features: Array | None = None  # (n, n_features) SciPy matrix or array; None where the network has no features
    dense: Array | None = None  # float32 (n, n_dense); None where it has no dense columns
    masks: Mapping[str, Array] = field(default_factory=dict)  # dropout in training: factors for a layer's output


class Step(NamedTuple):
    """One layer of a network: its output is apply(*outputs of the layers or inputs that it needs)."""

    name: str
    apply: Callable[..., Array]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class FeedbackNetwork:
    """The layers put together; of arrays it computes, of shared variables it is a graph.

    `network(inputs)` gives the log-probabilities of every level. Any layer's output is had by name or
    index, and each layer that it needs is computed once: `network["hidden"](inputs)`, `network[-1](inputs)`
    (the last level's log-probabilities). `network.names` lists them.
    """

    config: NetworkConfig
    tags: TagMean
    features: SparseProjection | None
    dense: Dense | None
    hidden: Hidden
    cell: GRUCell
    heads: tuple[Dense, ...]  # one a level

    @classmethod
    def initialise(cls, config: NetworkConfig, rng: np.random.Generator | None) -> FeedbackNetwork:
        """Return a network of float32 arrays drawn with rng; None gives a blank one, for loading."""
        n = config.hidden
        return cls(
            config=config,
            tags=TagMean.initialise(config.n_vocabulary, n, rng=rng),
            features=SparseProjection.initialise(config.n_features, n, rng=rng) if config.n_features else None,
            dense=Dense.initialise(config.n_dense, n, rng=rng) if config.n_dense else None,
            hidden=Hidden.initialise(n, rng=rng),
            cell=GRUCell.initialise(n, n, rng=rng),
            heads=tuple(Dense.initialise(n, n_classes, rng=rng) for n_classes in config.n_classes),
        )

    @classmethod
    def load(cls, config: NetworkConfig, arrays: Mapping[str, Array]) -> FeedbackNetwork:
        """Return the network of these parameters by name (`parameters.load`).

        Raises ModelError where a parameter is missing, foreign or of another shape.
        """
        return parameters.fill(cls.initialise(config, None), arrays)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the layers in order: this is the architecture."""
        steps = [Step("tags", self.tags, ("tag_index",))]
        if self.features is not None:
            steps.append(Step("features", self.features, ("features_input",)))
        if self.dense is not None:
            steps.append(Step("dense", self.dense, ("dense_input",)))
        steps.append(Step("hidden", self.hidden, tuple(step.name for step in steps)))
        steps.append(Step("projected", self.cell.project, ("hidden",)))
        for level, head in enumerate(self.heads, start=1):
            if level == 1:
                steps.append(Step("state_1", self.cell.start, ("projected",)))
            else:
                steps.append(Step(f"state_{level}", self.cell.step, ("projected", f"state_{level - 1}")))
            steps.append(Step(f"logits_{level}", head, (f"state_{level}",)))
            steps.append(Step(f"level_{level}", Softmax(), (f"logits_{level}",)))
        return tuple(steps)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers in order."""
        return tuple(step.name for step in self.steps)

    def __call__(self, inputs: Inputs) -> tuple[Array, ...]:
        """Return the log-probabilities of every level, (n, n_classes of the level) each."""
        return self.outputs(inputs, [f"level_{level}" for level in range(1, len(self.heads) + 1)])

    def logits(self, inputs: Inputs) -> tuple[Array, ...]:
        """Return the logits of every level, (n, n_classes of the level) each: what the losses start from."""
        return self.outputs(inputs, [f"logits_{level}" for level in range(1, len(self.heads) + 1)])

    def __getitem__(self, layer: int | str) -> Callable[[Inputs], Array]:
        """Return the function from inputs to the output of the layer of this index or name.

        Raises ModelError for a layer that the network does not have.
        """
        names = self.names
        if isinstance(layer, int):
            if not -len(names) <= layer < len(names):
                raise ModelError(f"layer {layer} is outside the network's {len(names)} layers: {', '.join(names)}")
            layer = names[layer]
        if layer not in names:
            raise ModelError(f"'{layer}' is not one of the layers {', '.join(names)}")
        return lambda inputs: self.outputs(inputs, [layer])[0]

    def outputs(self, inputs: Inputs, names: Sequence[str]) -> tuple[Array, ...]:
        """Return the outputs of the named layers; each layer that they need is computed once, the others are not."""
        steps = {step.name: step for step in self.steps}
        known = {"tag_index": inputs.tag_index, "features_input": inputs.features, "dense_input": inputs.dense}

        def compute(name: str) -> Array:
            if name not in known:
                step = steps[name]
                value = step.apply(*[compute(need) for need in step.needs])
                known[name] = value * inputs.masks[name] if name in inputs.masks else value
            if known[name] is None:
                raise ModelError(f"the network reads {name.replace('_', ' ')}, and the inputs hold none")
            return known[name]

        return tuple(compute(name) for name in names)
