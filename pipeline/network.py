"""The feedback network: one hidden layer, a recurrent state stepped once a level, a softmax a level.

The idea of Zamir et al. 2017 (arXiv 1612.09508), over levels of labels instead of images of growing detail.
Other parts stand beside these by configuration; without them the network is the plain one:

    kind = single_shot    every level from the hidden layer, without a recurrent state
    wide                  the sparse features straight to the logits (Cheng et al. 2016, arXiv 1606.07792)
    label_feedback        the expected embedding of a level's label is added to the input of the next step
    parent_mask           the log-probability of a class's parent is added to its logit
    experts               behind a top-k gate of the hidden layer: hidden layers above it, or heads of each level
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from pipeline import parameters
from pipeline.experts import MixtureOfExperts, MixtureOfHeads, TopKGate, expert_shares, exponential, imbalance
from pipeline.layers import Dense, GRUCell, Hidden, Softmax, SparseProjection, TagMean
from pipeline.links import LabelFeedback, ParentMask, Sum
from pipeline.network_config import NetworkConfig
from pipeline.ops import Array
from pipeline.steps import Inputs, Network, Step

__all__ = ["FeedbackNetwork", "Inputs", "Network", "NetworkConfig", "Step", "expert_shares"]


@dataclass(frozen=True)
class FeedbackNetwork(Network):
    """The layers put together; `network[-1](inputs)` are the last level's log-probabilities."""

    config: NetworkConfig
    tags: TagMean
    features: SparseProjection | None
    dense: Dense | None
    hidden: Hidden
    gate: TopKGate | None
    experts: MixtureOfExperts | None
    cell: GRUCell | None  # None in a single-shot network
    heads: tuple[Dense | MixtureOfHeads, ...]  # one a level
    wide: SparseProjection | None  # to the logits of all levels, side by side
    labels: tuple[LabelFeedback, ...]  # of each level but the last

    @classmethod
    def initialise(cls, config: NetworkConfig, rng: np.random.Generator | None) -> FeedbackNetwork:
        """Return a network of float32 arrays drawn with rng; None gives a blank one, for loading."""
        n, n_experts = config.hidden, config.experts
        above = n_experts and config.experts_at == "hidden"
        return cls(
            config=config,
            tags=TagMean.initialise(config.n_vocabulary, n, rng=rng),
            features=SparseProjection.initialise(config.n_features, n, rng=rng) if config.n_features else None,
            dense=Dense.initialise(config.n_dense, n, rng=rng) if config.n_dense else None,
            hidden=Hidden.initialise(n, norm=config.norm, rng=rng),
            gate=TopKGate.initialise(n, n_experts, top_k=config.top_k, rng=rng) if n_experts else None,
            experts=MixtureOfExperts.initialise(n, n, n_experts=n_experts, rng=rng) if above else None,
            cell=GRUCell.initialise(n, n, rng=rng) if config.kind == "feedback" else None,
            heads=tuple(
                MixtureOfHeads.initialise(n, n_classes, n_experts=n_experts, rng=rng)
                if n_experts and not above
                else Dense.initialise(n, n_classes, rng=rng)
                for n_classes in config.n_classes
            ),
            wide=SparseProjection.zeros(config.n_features, sum(config.n_classes), rng=rng) if config.wide else None,
            labels=tuple(
                LabelFeedback.initialise(n_classes, n, rng=rng)
                for n_classes in (config.n_classes[:-1] if config.label_feedback else ())
            ),
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
        steps = [*self._below(), *self._gating()]
        source = "hidden" if self.experts is None else "experts"
        if self.cell is not None:
            steps.append(Step("projected", self.cell.project, (source,)))
        if self.wide is not None:
            steps.append(Step("wide", self.wide, ("features_input",)))
        for level in range(1, len(self.heads) + 1):
            steps += [*self._state(level, source), *self._logits(level, source)]
            steps.append(Step(f"level_{level}", Softmax(), (f"logits_{level}",)))
        return tuple(steps)

    def _below(self) -> Iterator[Step]:
        """Yield the steps from the inputs to the hidden layer."""
        parts = [Step("tags", self.tags, ("tag_index",))]
        if self.features is not None:
            parts.append(Step("features", self.features, ("features_input",)))
        if self.dense is not None:
            parts.append(Step("dense", self.dense, ("dense_input",)))
        yield from parts
        inputs = tuple(part.name for part in parts)
        if self.config.norm != "batch":
            yield Step("hidden", self.hidden, inputs)
            return

        def hidden(training: bool, *parts: Array) -> Array:
            return self.hidden(*parts, training=training)

        def statistics(_: bool, *parts: Array) -> dict[str, Array]:
            # The batch's mean takes away what a bias adds: all that its gradient has is rounding, which Adam would make
            # a walk of whole steps, and the running mean would lag behind it.
            still = {"hidden.bias": self.hidden.bias} | ({} if self.dense is None else {"dense.bias": self.dense.bias})
            return still | {f"hidden.{name}": value for name, value in self.hidden.statistics(*parts).items()}

        yield Step("hidden", hidden, ("training", *inputs), statistics=statistics)

    def _gating(self) -> Iterator[Step]:
        """Yield the steps of the gate, and of the experts above the hidden layer."""
        if self.gate is not None:
            yield Step("log_gate", self.gate.log_weights, ("hidden",))
            yield Step("gate", exponential, ("log_gate",), penalty=imbalance)
        if self.experts is not None:
            yield Step("experts", self.experts, ("hidden", "gate"))

    def _state(self, level: int, source: str) -> Iterator[Step]:
        """Yield the steps to the state of a level; a single-shot network has none."""
        if self.cell is None:
            return
        projected = "projected"
        if self.labels and level > 1:
            yield Step(f"input_{level}", self.labels[level - 2], (source, f"level_{level - 1}"))
            yield Step(projected := f"projected_{level}", self.cell.project, (f"input_{level}",))
        if level == 1:
            yield Step("state_1", self.cell.start, (projected,))
        else:
            yield Step(f"state_{level}", self.cell.step, (projected, f"state_{level - 1}"))

    def _logits(self, level: int, source: str) -> Iterator[Step]:
        """Yield the steps from a state to the logits of its level: the head's, and what is added to them."""
        state = source if self.cell is None else f"state_{level}"
        head = self.heads[level - 1]
        needs = (state, "log_gate") if isinstance(head, MixtureOfHeads) else (state,)
        added = []
        if self.wide is not None:
            start, stop = list(pairwise(accumulate(self.config.n_classes, initial=0)))[level - 1]
            added.append(Step(f"wide_{level}", lambda x: x[:, start:stop], ("wide",)))
        if self.config.parent_mask and level > 1:
            parents = ParentMask(self.config.parents[level - 2])
            added.append(Step(f"parents_{level}", parents, (f"level_{level - 1}",)))
        if not added:
            yield Step(f"logits_{level}", head, needs)
            return
        yield Step(f"head_{level}", head, needs)
        yield from added
        yield Step(f"logits_{level}", Sum(), (f"head_{level}", *(step.name for step in added)))
