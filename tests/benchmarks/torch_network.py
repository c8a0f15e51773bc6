"""The feedback network and its training in PyTorch, as a good user of PyTorch would write them: a peer to measure.

Tags and features are ragged rows for EmbeddingBag; AdaGrad is PyTorch's own, fused wherever its gradient is dense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class TorchBatch(NamedTuple):
    """Tags and features of all items in a row, with the offset at which each item begins."""

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
        # The first step starts from a zero state: no recurrent product, no reset gate.
        state = torch.sigmoid(update_in) * torch.relu(self.candidate_norm(candidate_in))
        loss = cross_entropy(self.heads[0](state), labels[:, 0])
        for level, head in enumerate(list(self.heads)[1:], start=1):
            reset_state, update_state = self.recurrent(state).chunk(2, dim=1)
            reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
            candidate = torch.relu(self.candidate_norm(candidate_in + self.recurrent_candidate(reset * state)))
            state = torch.lerp(state, candidate, update)
            loss = loss + cross_entropy(head(state), labels[:, level])
        return loss


class TorchTrainer:
    """A network, its optimizers and its data; `sparse` gradients of the tables, `compiled`: '', 'body' or 'whole'."""

    def __init__(self, examples: Any, weights: Mapping[str, Any], *, sparse: bool, compiled: str, rate: float) -> None:
        self.examples, self.tags = examples, ragged(examples.tag_index)
        n_classes = tuple(
            value.shape[1] for name, value in weights.items() if name.startswith("heads") and value.ndim == 2
        )
        sizes = {name: weights[f"{name}.weight"].shape for name in ("tags", "features")}
        self.tag_bag = nn.EmbeddingBag(*sizes["tags"], mode="mean", sparse=sparse, padding_idx=0)
        self.feature_bag = nn.EmbeddingBag(*sizes["features"], mode="sum", sparse=sparse)
        self.body = Body(sizes["tags"][1], n_classes)
        self.load(weights)
        tables = [self.tag_bag.weight, self.feature_bag.weight]
        adagrad: Callable[..., Any] = torch.optim.Adagrad
        self.optimizers = [adagrad(self.body.parameters(), lr=rate, eps=1e-8, fused=True)]
        self.optimizers.append(adagrad(tables, lr=rate, eps=1e-8, **({} if sparse else {"fused": True})))
        self.run_body = torch.compile(self.body) if compiled == "body" else self.body
        self.loss = torch.compile(self.loss_of, dynamic=True) if compiled == "whole" else self.loss_of

    def load(self, weights: Mapping[str, Any]) -> None:
        """Set all parameters to copies of our own, by their dotted names."""
        body = self.body
        pairs = [(self.tag_bag.weight, "tags.weight"), (self.feature_bag.weight, "features.weight")]
        pairs += [(body.bias, "hidden.bias")]
        pairs += [(body.norm.weight, "hidden.norm.gain"), (body.norm.bias, "hidden.norm.bias")]
        pairs += [(body.candidate_norm.weight, "cell.norm.gain"), (body.candidate_norm.bias, "cell.norm.bias")]
        pairs += [(body.gates.bias, "cell.bias")]
        turned = [(body.gates.weight, "cell.weight"), (body.recurrent.weight, "cell.recurrent")]
        turned += [(body.recurrent_candidate.weight, "cell.recurrent_candidate")]
        for level, head in enumerate(body.heads):
            turned.append((head.weight, f"heads.{level}.weight"))
            pairs.append((head.bias, f"heads.{level}.bias"))
        with torch.no_grad():
            for parameter, name in pairs:
                parameter.copy_(torch.from_numpy(weights[name]))
            for parameter, name in turned:
                parameter.copy_(torch.from_numpy(weights[name].T.copy()))

    def batch(self, index: Any) -> TorchBatch:
        """Return the items of this index: views of what SciPy and NumPy take out of the rows."""
        tags, features = self.tags[index], self.examples.features[index]
        labels = self.examples.labels[index].astype(np.int64)
        parts = (tags.indices, tags.indptr[:-1], features.indices, features.indptr[:-1], features.data, labels)
        return TorchBatch(*(torch.from_numpy(part) for part in parts))

    def batches(self, batch_size: int, seed: int) -> Iterator[TorchBatch]:
        """Yield the whole batches of an epoch in a drawn order."""
        order = np.random.default_rng(seed).permutation(len(self.examples))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield self.batch(order[start : start + batch_size])

    def loss_of(self, batch: TorchBatch) -> Tensor:
        """Return the loss of a batch."""
        features = self.feature_bag(batch.columns, batch.column_offsets, per_sample_weights=batch.values)
        return self.run_body(self.tag_bag(batch.tags, batch.tag_offsets), features, batch.labels)

    def step(self, batch: TorchBatch) -> float:
        """Change the parameters by one batch; return its loss before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()


def ragged(tag_index: Any) -> Any:
    """Return padded rows of ids as a CSR matrix whose columns are the ids, padding left out; in the order given."""
    from scipy import sparse

    kept = tag_index > 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    shape = (len(tag_index), int(tag_index.max()) + 1)
    return sparse.csr_matrix((np.ones(indptr[-1], np.float32), tag_index[kept], indptr), shape=shape)
