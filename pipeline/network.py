"""The feedback network: one hidden layer, a recurrent state stepped once a level, a softmax a level.

The idea of Zamir et al. 2017 (arXiv 1612.09508), over levels of labels instead of images of growing detail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline import parameters
from pipeline.layers import Dense, GRUCell, Hidden, Softmax, SparseProjection, TagMean
from pipeline.network_config import NetworkConfig
from pipeline.ops import Array
from pipeline.steps import Inputs, Network, Step

__all__ = ["FeedbackNetwork", "Inputs", "Network", "NetworkConfig", "Step"]


@dataclass(frozen=True)
class FeedbackNetwork(Network):
    """The layers put together; `network[-1](inputs)` are the last level's log-probabilities."""

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
