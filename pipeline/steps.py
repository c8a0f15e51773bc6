"""What every network is: named steps over its inputs. The base class, for the library's networks and one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline import parameters
from pipeline.errors import ModelError
from pipeline.layers import SparseProjection, TagMean
from pipeline.network_config import NetworkConfig
from pipeline.ops import Array


@dataclass(frozen=True)
class Inputs:
    """What the network reads of n items: arrays, or an engine's variables."""

    tag_index: Array  # int32 (n, n_tags); 0 pads, in any position
    features: Array | None = None  # (n, n_features) SciPy matrix or array; None where the network has no features
    dense: Array | None = None  # float32 (n, n_dense); None where it has no dense columns
    masks: Mapping[str, Array] = field(default_factory=dict)  # dropout in training: factors for a layer's output
    training: bool = False  # statistics are those of the batch, not the running ones


class Step(NamedTuple):
    """One layer of a network: its output is apply(*outputs of the layers or inputs that it needs).

    A step may need the outputs of other steps, `tag_index`, `features_input`, `dense_input`, and `training`
    (a bool). `statistics`, of the same needs, gives the next values of parameters that are not learned by
    gradient, by their dotted names; `penalty`, of the step's output, a scalar that training makes smaller.
    """

    name: str
    apply: Callable[..., Array]
    needs: tuple[str, ...]
    statistics: Callable[..., Mapping[str, Array]] | None = None
    penalty: Callable[[Array], Array] | None = None


class Network(ABC):
    """A network: of arrays it computes, of an engine's shared variables it is a graph.

    A frozen dataclass of layers that derives from this class and gives `config` and `steps` can be trained,
    exported and scored. Its steps must name `logits_1` ... and `level_1` ... (log-probabilities) of every level.
    Any layer's output is had by name or index, and each layer that it needs is computed once:
    `network["hidden"](inputs)`, `network[-1](inputs)`. `network.names` lists them.
    """

    config: NetworkConfig

    @property
    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """Return the layers in order: this is the architecture."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers in order."""
        return tuple(step.name for step in self.steps)

    def __call__(self, inputs: Inputs | Array) -> tuple[Array, ...]:
        """Return the log-probabilities of every level, (n, n_classes of the level) each."""
        return self.outputs(inputs, self._of_levels("level"))

    def logits(self, inputs: Inputs | Array) -> tuple[Array, ...]:
        """Return the logits of every level, (n, n_classes of the level) each: what the losses start from."""
        return self.outputs(inputs, self._of_levels("logits"))

    def _of_levels(self, name: str) -> list[str]:
        return [f"{name}_{level}" for level in range(1, len(self.config.n_classes) + 1)]

    def __getitem__(self, layer: int | str) -> Callable[[Inputs | Array], Array]:
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

    def outputs(self, inputs: Inputs | Array, names: Sequence[str]) -> tuple[Array, ...]:
        """Return the outputs of the named layers; each layer that they need is computed once, the others are not.

        Of a network that reads nothing else, the inputs may be the tag index alone.
        """
        inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
        steps = {step.name: step for step in self.steps}
        known: dict[str, Any] = {
            "tag_index": inputs.tag_index,
            "features_input": inputs.features,
            "dense_input": inputs.dense,
            "training": inputs.training,
        }

        def compute(name: str) -> Array:
            if name not in known:
                step = steps[name]
                value = step.apply(*[compute(need) for need in step.needs])
                known[name] = value * inputs.masks[name] if name in inputs.masks else value
            if known[name] is None:
                raise ModelError(f"the network reads {name.replace('_', ' ')}, and the inputs hold none")
            return known[name]

        return tuple(compute(name) for name in names)

    @property
    def tables(self) -> Mapping[str, str]:
        """Return the parameters that training updates by touched rows only -> the index of a Batch: rows or columns.

        A batch is renumbered to the rows that it touches, so every parameter that `tag_index` or the sparse
        features address must be among them: those of every TagMean and SparseProjection are.
        """
        kinds = {TagMean: "rows", SparseProjection: "columns"}
        layers = parameters.layers(self).items()
        return {f"{name}.weight": kinds[type(layer)] for name, layer in layers if type(layer) in kinds}

    def statistics(self, inputs: Inputs) -> dict[str, Array]:
        """Return the next values of the parameters that are not learned by gradient, by dotted name."""
        found: dict[str, Array] = {}
        for step in self.steps:
            if step.statistics is not None:
                found.update(step.statistics(*self.outputs(inputs, step.needs)))
        return found

    def penalties(self, inputs: Inputs) -> list[Array]:
        """Return scalars that training adds to the loss, times [training] expert_balance."""
        return [step.penalty(self.outputs(inputs, [step.name])[0]) for step in self.steps if step.penalty is not None]
