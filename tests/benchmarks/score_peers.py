"""The forward of the feedback network to the top label of every level, by ourselves and by peers of the same weights.

As a good user of each would write it: PyTorch by EmbeddingBag over ragged rows in inference mode, eager and compiled;
ONNX Runtime by a graph of Gather, ReduceSum, MatMul and LayerNormalization over padded rows, with all optimisations.
Each has its inputs ready in its own form, and gives the labels (int64) and, where asked, the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline import parameters
from pipeline.network import FeedbackNetwork, Inputs

Outputs = tuple[list[Any], list[Any]]  # labels of every level, logits of every level
Runner = Callable[[Any], Outputs]
Weights = dict[str, Any]


def ours(network: FeedbackNetwork, _: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return what makes inputs ready, and the folded network as scoring runs it."""
    from pipeline.inference import ROWS, Plan

    plan = Plan(network)
    heads = plan.level_heads()

    def run(bag: Any) -> Outputs:
        sums = bag @ plan.table
        labels = [np.empty(len(sums), np.int64) for _ in heads]
        for start in range(0, len(sums), ROWS):
            logits = plan.outputs(sums[start : start + ROWS], heads)
            for found, level in zip(labels, logits, strict=True):
                np.argmax(level, axis=1, out=found[start : start + ROWS])
        return labels, []

    def run_all(bag: Any) -> Outputs:
        return run(bag)[0], plan.outputs(bag[:ROWS] @ plan.table, heads)

    run.with_logits = run_all  # type: ignore[attr-defined]
    return lambda tags, features: plan.bag(Inputs(tags, features.tocsc())), run


def layers(network: FeedbackNetwork, _: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return the network of layers, on NumPy."""

    def run(inputs: Inputs) -> Outputs:
        logits = network.logits(inputs)
        return [level.argmax(axis=1) for level in logits], list(logits)

    return lambda tags, features: Inputs(tags, features.tocsc()), run


def torch_eager(network: FeedbackNetwork, n_threads: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return PyTorch's side."""
    return _torch(network, n_threads, compiled="")


def torch_compiled(network: FeedbackNetwork, n_threads: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return PyTorch's side, compiled as a whole."""
    return _torch(network, n_threads, compiled="whole")


def torch_body(network: FeedbackNetwork, n_threads: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return PyTorch's side, compiled from the sums of the tables on."""
    return _torch(network, n_threads, compiled="body")


def _torch(network: FeedbackNetwork, n_threads: int, *, compiled: str) -> tuple[Callable[[Any, Any], Any], Runner]:
    import torch
    from torch import nn

    torch.set_num_threads(n_threads)
    weights = parameters.flatten(network)
    n_levels, tensor = len(network.heads), {name: torch.from_numpy(value) for name, value in weights.items()}

    def linear(weight: str, bias: str = "") -> nn.Linear:
        layer = nn.Linear(*weights[weight].shape, bias=bool(bias))
        layer.weight = nn.Parameter(tensor[weight].T.contiguous())
        if bias:
            layer.bias = nn.Parameter(tensor[bias])
        return layer

    def norm(name: str) -> nn.LayerNorm:
        layer = nn.LayerNorm(weights[f"{name}.gain"].shape[0])
        layer.weight, layer.bias = nn.Parameter(tensor[f"{name}.gain"]), nn.Parameter(tensor[f"{name}.bias"])
        return layer

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(tensor["hidden.bias"])
            self.norm, self.candidate_norm = norm("hidden.norm"), norm("cell.norm")
            self.gates = linear("cell.weight", "cell.bias")
            self.recurrent, self.recurrent_candidate = linear("cell.recurrent"), linear("cell.recurrent_candidate")
            self.heads = nn.ModuleList(linear(f"heads.{k}.weight", f"heads.{k}.bias") for k in range(n_levels))

        def forward(self, tags: Any, features: Any) -> Any:
            hidden = torch.relu(self.norm(tags + features + self.bias))
            reset_in, update_in, candidate_in = self.gates(hidden).chunk(3, dim=1)
            state = torch.sigmoid(update_in) * torch.relu(self.candidate_norm(candidate_in))
            logits = [self.heads[0](state)]
            for head in list(self.heads)[1:]:
                reset_state, update_state = self.recurrent(state).chunk(2, dim=1)
                reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
                candidate = torch.relu(self.candidate_norm(candidate_in + self.recurrent_candidate(reset * state)))
                state = torch.lerp(state, candidate, update)
                logits.append(head(state))
            return [level.argmax(dim=1) for level in logits], logits

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tags = nn.EmbeddingBag(*weights["tags.weight"].shape, mode="mean", padding_idx=0)
            self.features = nn.EmbeddingBag(*weights["features.weight"].shape, mode="sum")
            self.tags.weight = nn.Parameter(tensor["tags.weight"])
            self.features.weight = nn.Parameter(tensor["features.weight"])
            self.body = torch.compile(Body()) if compiled == "body" else Body()

        def forward(self, tags: Any, starts: Any, columns: Any, column_starts: Any, values: Any) -> Any:
            features = self.features(columns, column_starts, per_sample_weights=values)
            return self.body(self.tags(tags, starts), features)

    whole = Whole().eval()
    forward = torch.compile(whole) if compiled == "whole" else whole

    def ready(tags: Any, features: Any) -> Any:
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(tags, axis=1))]).astype(np.int32)
        parts = (tags[tags > 0], ends[:-1], features.indices, features.indptr[:-1], features.data)
        return [torch.from_numpy(np.ascontiguousarray(part)) for part in parts]

    def run(inputs: Any) -> Outputs:
        with torch.inference_mode():
            labels, logits = forward(*inputs)
        return labels, logits

    return ready, run


def onnx(network: FeedbackNetwork, n_threads: int) -> tuple[Callable[[Any, Any], Any], Runner]:
    """Return ONNX Runtime's side; of features a row holds as many places as the longest has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    sessions = [
        onnxruntime.InferenceSession(_graph(network, logits=logits), options, providers=["CPUExecutionProvider"])
        for logits in (False, True)
    ]

    def ready(tags: Any, features: Any) -> Any:
        lengths = np.diff(features.indptr)
        filled = np.arange(max(1, lengths.max())) < lengths[:, None]
        columns, values = np.zeros(filled.shape, np.int32), np.zeros(filled.shape, np.float32)
        columns[filled], values[filled] = features.indices, features.data
        shares = (1 / np.maximum(1, np.count_nonzero(tags, axis=1, keepdims=True))).astype(np.float32)
        return {"tags": tags, "shares": shares, "columns": columns, "values": values}

    def run(inputs: Any) -> Outputs:
        return sessions[0].run(None, inputs), []

    def run_all(inputs: Any) -> Outputs:
        found = sessions[1].run(None, inputs)
        return found[: len(network.heads)], found[len(network.heads) :]

    run.with_logits = run_all  # type: ignore[attr-defined]
    return ready, run


def _graph(network: FeedbackNetwork, *, logits: bool) -> bytes:
    """Return the network as an ONNX model."""
    from onnx import TensorProto, checker, helper, numpy_helper

    weights = parameters.flatten(network)
    nodes: list[Any] = []
    constants = {
        name.replace(".", "_"): np.ascontiguousarray(value)
        for name, value in {**weights, "axis": np.array([1], np.int64)}.items()
    }
    n = weights["cell.recurrent_candidate"].shape[0]
    constants |= {"three": np.full(3, n, np.int64), "two": np.full(2, n, np.int64)}
    # The padding of tags is a row of zeros, and what is divided by is given.
    names = iter(range(10**6))

    def op(kind: str, *inputs: str, n_outputs: int = 1, **attributes: Any) -> Any:
        found = [f"v{next(names)}" for _ in range(n_outputs)]
        nodes.append(helper.make_node(kind, list(inputs), found, **attributes))
        return found[0] if n_outputs == 1 else found

    def norm(x: str, name: str) -> Any:
        return op("LayerNormalization", x, f"{name}_gain", f"{name}_bias", axis=-1, epsilon=1e-5)

    tags = op("Mul", op("ReduceSum", op("Gather", "tags_weight", "tags"), "axis", keepdims=0), "shares")
    rows = op("MatMul", op("Unsqueeze", "values", "axis"), op("Gather", "features_weight", "columns"))
    total = op("Add", op("Add", tags, op("Squeeze", rows, "axis")), "hidden_bias")
    hidden = op("Relu", norm(total, "hidden_norm"))
    projected = op("Gemm", hidden, "cell_weight", "cell_bias")
    reset_in, update_in, candidate_in = op("Split", projected, "three", n_outputs=3, axis=1)
    gates_in = op("Concat", reset_in, update_in, axis=1)
    state = op("Mul", op("Sigmoid", update_in), op("Relu", norm(candidate_in, "cell_norm")))
    levels = []
    for k in range(len(network.heads)):
        if k:
            gates = op("Sigmoid", op("Add", gates_in, op("MatMul", state, "cell_recurrent")))
            reset, update = op("Split", gates, "two", n_outputs=2, axis=1)
            recurrent = op("MatMul", op("Mul", reset, state), "cell_recurrent_candidate")
            candidate = op("Relu", norm(op("Add", candidate_in, recurrent), "cell_norm"))
            state = op("Add", state, op("Mul", update, op("Sub", candidate, state)))
        levels.append(op("Gemm", state, f"heads_{k}_weight", f"heads_{k}_bias"))
    labels = [op("ArgMax", level, axis=1, keepdims=0) for level in levels]
    value, kinds = helper.make_tensor_value_info, TensorProto
    outputs = [value(label, kinds.INT64, ["n"]) for label in labels]
    outputs += [value(level, kinds.FLOAT, ["n", None]) for level in levels] if logits else []
    inputs = [value("tags", kinds.INT32, ["n", "t"]), value("shares", kinds.FLOAT, ["n", 1])]
    inputs += [value("columns", kinds.INT32, ["n", "f"]), value("values", kinds.FLOAT, ["n", "f"])]
    initial = [numpy_helper.from_array(constant, name) for name, constant in constants.items()]
    graph = helper.make_graph(nodes, "feedback", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found


SIDES: dict[str, Callable[[FeedbackNetwork, int], tuple[Callable[[Any, Any], Any], Runner]]] = {
    "tagladder": ours,
    "tagladder, layer by layer": layers,
    "torch, eager": torch_eager,
    "torch.compile of all": torch_compiled,
    "torch.compile after the tables": torch_body,
    "onnxruntime": onnx,
}


def outputs_of(run: Runner, inputs: Sequence[Any]) -> tuple[Any, Any]:
    """Return the labels, (n, n_levels), of some batches, and the logits, side by side, of the first rows."""
    labels = [np.stack([np.asarray(level) for level in run(one)[0]], axis=1) for one in inputs]
    logits = getattr(run, "with_logits", run)(inputs[0])[1]
    return np.concatenate(labels), np.concatenate([np.asarray(level) for level in logits], axis=1)
