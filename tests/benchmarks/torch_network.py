"""The feedback network and its training in PyTorch, as a good user of PyTorch would write them: a peer to measure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class TorchBatch(NamedTuple):
    """Ragged tags and features with the offsets of their items, as EmbeddingBag takes them."""

    tags: Tensor
    tag_offsets: Tensor
    columns: Tensor
    column_offsets: Tensor
    values: Tensor
    labels: Tensor


class Body(nn.Module):
    """All that comes after the tables: the hidden layer, the cell, the heads, the loss."""

    def __init__(self, hidden: int, n_classes: tuple[int, ...]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.norm = nn.LayerNorm(hidden)
        self.gates = nn.Linear(hidden, 3 * hidden)
        self.recurrent = nn.Linear(hidden, 2 * hidden, bias=False)
        self.recurrent_candidate = nn.Linear(hidden, hidden, bias=False)
        self.candidate_norm = nn.LayerNorm(hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in n_classes)

    def forward(self, tags: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss: the sum over levels of the mean cross-entropy."""
        hidden = torch.relu(self.norm(tags + features + self.bias))
        reset_in, update_in, candidate_in = self.gates(hidden).chunk(3, dim=1)
        state = torch.sigmoid(update_in) * torch.relu(self.candidate_norm(candidate_in))
        loss = cross_entropy(self.heads[0](state), labels[:, 0])
        for level, head in enumerate(list(self.heads)[1:], start=1):
            reset_state, update_state = self.recurrent(state).chunk(2, dim=1)
            reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
            candidate = torch.relu(self.candidate_norm(candidate_in + self.recurrent_candidate(reset * state)))
            state = torch.lerp(state, candidate, update)
            loss = loss + cross_entropy(head(state), labels[:, level])
        return loss
