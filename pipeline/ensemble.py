"""An ensemble: networks of the same configuration, trained from different seeds, that answer as one.

It has what scoring, evaluation and calibration ask of a network: `config`, `logits`, `__call__`, layers by name or
index. Averaged are the logits, which is the geometric mean of the probabilities. Against the arithmetic one, three
members on 955 held-out products: path right .829 to .823 and log-loss .949 to .961 after training by likelihood, .806
to .807 and 1.227 to 1.203 after hinge, whose margins are no probabilities (a member alone: .785 to .796, .761 to .785).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig
from pipeline.ops.numeric import log_softmax

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ensemble:
    """Networks of arrays whose logits are averaged at every level."""

    members: tuple[FeedbackNetwork, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise ModelError("an ensemble needs a member at least")
        for number, member in enumerate(self.members, start=1):
            if member.config != self.config:
                raise ModelError(f"member {number} of the ensemble is {member.config}, the first {self.config}")

    @property
    def config(self) -> NetworkConfig:
        """Return the configuration that all members have."""
        return self.members[0].config

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of a member's layers in order."""
        return self.members[0].names

    def __call__(self, inputs: Inputs) -> tuple[Floats, ...]:
        """Return the log-probabilities of every level, (n, n_classes of the level) each."""
        return tuple(map(log_softmax, self.logits(inputs)))

    def logits(self, inputs: Inputs) -> tuple[Floats, ...]:
        """Return the mean of the members' logits of every level, (n, n_classes of the level) each."""
        members = [member.logits(inputs) for member in self.members]
        return tuple(np.mean(level, axis=0) for level in zip(*members, strict=True))

    def __getitem__(self, layer: int | str) -> Callable[[Inputs], Floats]:
        """Return the function from inputs to a layer's output: averaged for a level, else the members' side by side.

        Raises ModelError for a layer that the members do not have.
        """
        name = self.names[layer] if isinstance(layer, int) and -len(self.names) <= layer < len(self.names) else layer
        functions = [member[name] for member in self.members]
        kind, _, number = str(name).rpartition("_")
        if kind in ("level", "logits"):
            of_levels = self if kind == "level" else self.logits
            return lambda inputs: of_levels(inputs)[int(number) - 1]
        return lambda inputs: np.concatenate([function(inputs) for function in functions], axis=1)


def together(networks: Sequence[FeedbackNetwork]) -> FeedbackNetwork | Ensemble:
    """Return one network as it is, several as an ensemble."""
    return networks[0] if len(networks) == 1 else Ensemble(tuple(networks))


def members_of(network: FeedbackNetwork | Ensemble) -> tuple[FeedbackNetwork, ...]:
    """Return the networks of an ensemble, or the one that there is."""
    return network.members if isinstance(network, Ensemble) else (network,)
