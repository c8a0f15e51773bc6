"""An ensemble: networks of the same configuration, trained from different seeds, that answer as one.

It has what scoring, evaluation and calibration ask of a network: `config`, `logits`, `__call__`, layers by name or
index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.network import FeedbackNetwork, Inputs, NetworkConfig

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ensemble:
    """Networks of arrays whose probabilities are averaged at every level."""

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
        return tuple(
            mean_probability(levels) for levels in zip(*(member(inputs) for member in self.members), strict=True)
        )

    def logits(self, inputs: Inputs) -> tuple[Floats, ...]:
        """Return what temperatures divide: the log-probabilities, as they are logits of themselves."""
        return self(inputs)

    def __getitem__(self, layer: int | str) -> Callable[[Inputs], Floats]:
        """Return the function from inputs to a layer's output: averaged for a level, else the members' side by side.

        Raises ModelError for a layer that the members do not have.
        """
        name = self.names[layer] if isinstance(layer, int) and -len(self.names) <= layer < len(self.names) else layer
        functions = [member[name] for member in self.members]
        kind, _, number = str(name).rpartition("_")
        if kind in ("level", "logits"):
            return lambda inputs: self(inputs)[int(number) - 1]
        return lambda inputs: np.concatenate([function(inputs) for function in functions], axis=1)


def mean_probability(members: Sequence[Floats]) -> Floats:
    """Return the log of the mean of the members' probabilities, from their logarithms, (n, n_classes) each.

    >>> np.exp(mean_probability([np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])])).round(6)
    array([[0.7, 0.3]])
    """
    stacked = np.stack(members)
    highest = stacked.max(axis=0)
    # Taken from the highest, a sum of exponentials is 1 at least: its logarithm is finite.
    total: Floats = np.exp(stacked - highest).sum(axis=0)
    mean: Floats = highest + np.log(total) - stacked.dtype.type(np.log(len(members)))
    return mean


def together(networks: Sequence[FeedbackNetwork]) -> FeedbackNetwork | Ensemble:
    """Return one network as it is, several as an ensemble."""
    return networks[0] if len(networks) == 1 else Ensemble(tuple(networks))


def members_of(network: FeedbackNetwork | Ensemble) -> tuple[FeedbackNetwork, ...]:
    """Return the networks of an ensemble, or the one that there is."""
    return network.members if isinstance(network, Ensemble) else (network,)
