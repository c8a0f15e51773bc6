"""Stage 3: network, objective and optimizer become one compiled function, the training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import optimizer, parameters
from pipeline.batches import Batch
from pipeline.config_learning import TrainingSettings
from pipeline.network import Inputs, Network, NetworkConfig
from pipeline.objective import Goal, make_objective
from pipeline.ops import Array
from pipeline.ops.symbolic import Engine, Variable
from pipeline.optimizer import ChangeGradients


@dataclass(frozen=True)
class TrainingStep:
    """The compiled step, the parameters that it changes, and what its optimizer remembers."""

    blank: Network
    shared: Mapping[str, Variable]  # parameters by name
    state: Mapping[str, Variable]  # the optimizer's state by name
    function: Callable[..., list[Array]]
    masks: tuple[str, ...]

    def __call__(self, batch: Batch, learning_rate: float) -> tuple[float, float]:
        """Change the parameters by one batch; return its loss, before the change, and the norm of its gradient."""
        values = [batch.tag_index, batch.features, batch.dense, *(batch.masks[name] for name in self.masks)]
        values += [batch.labels, batch.rows, batch.columns, np.asarray(learning_rate, dtype_of(self.blank))]
        with np.errstate(all="ignore"):  # What is not finite is for the caller to find, and to tell.
            loss, norm = self.function(*[value for value in values if value is not None])
        return float(loss), float(norm)

    def restore(self, weights: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Set parameters and optimizer to copies of these values, by name."""
        for variables, values in ((self.shared, weights), (self.state, state)):
            for name, variable in variables.items():
                variable.set_value(values[name], borrow=False)

    def network(self) -> Network:
        """Return the network of arrays as it is now."""
        return parameters.fill(self.blank, optimizer.snapshot(self.shared))


def dtype_of(network: Network) -> str:
    """Return the dtype of a network's parameters: float32, or float64 in proofs."""
    return str(next(iter(parameters.flatten(network).values())).dtype)


def input_variables(
    engine: Engine,
    config: NetworkConfig,
    *,
    masks: tuple[str, ...] = (),
    training: bool = False,
    dtype: str = "float32",
) -> Inputs:
    """Return the network's inputs as variables of an engine."""
    return Inputs(
        tag_index=engine.variable("tag_index", dtype="int32", ndim=2),
        features=engine.sparse_variable("features", dtype=dtype) if config.n_features else None,
        dense=engine.variable("dense", dtype=dtype, ndim=2) if config.n_dense else None,
        masks={name: engine.variable(f"mask_{name}", dtype=dtype, ndim=2) for name in masks},
        training=training,
    )


def compile_step(
    engine: Engine,
    network: Network,
    settings: TrainingSettings,
    *,
    objective: Goal | None = None,
    change_gradients: ChangeGradients | None = None,
) -> TrainingStep:
    """Return the training step of a network of arrays, which stay as they are (the step has copies).

    The objective is what the settings ask for, unless another is given. All is computed in the dtype of the network.

    The first compile takes about a minute in mode fast_run, later ones seconds: the engines keep a cache.
    """
    shared = {name: engine.shared(value, name) for name, value in parameters.flatten(network).items()}
    index = {name: engine.variable(name, dtype="int32", ndim=1) for name in ("rows", "columns")}
    tables = network.tables
    learned = [
        optimizer.touched_rows(engine, name, variable, index[tables[name]], padded=tables[name] == "rows")
        if name in tables
        else optimizer.whole(name, variable)
        for name, variable in shared.items()
    ]
    # The layers do not know that their tables are only the rows which the batch was renumbered to.
    graph = parameters.replace(network, {parameter.name: parameter.value for parameter in learned})
    masks = ("hidden",) if settings.dropout else ()
    dtype = dtype_of(network)
    inputs = input_variables(engine, network.config, masks=masks, training=True, dtype=dtype)
    labels = engine.variable("labels", dtype="int32", ndim=2)
    learning_rate = engine.variable("learning_rate", dtype=dtype, ndim=0)
    objective = make_objective(settings) if objective is None else objective
    loss = objective(graph.logits(inputs), labels)
    for penalty in graph.penalties(inputs):
        loss = loss + engine.constant(settings.expert_balance, penalty) * penalty
    statistics = graph.statistics(inputs)
    updates = optimizer.minimise(
        engine,
        loss,
        [parameter for parameter in learned if parameter.name not in statistics],
        optimizer=optimizer.OPTIMIZERS[settings.optimizer](),
        learning_rate=learning_rate,
        clip_norm=settings.clip_norm,
        weight_decay=settings.weight_decay,
        change_gradients=change_gradients,
    )
    variables: list[Any] = [inputs.tag_index, inputs.features, inputs.dense, *inputs.masks.values(), labels]
    variables += [index["rows"], index["columns"] if network.config.n_features else None, learning_rate]
    function = engine.function(
        [variable for variable in variables if variable is not None],
        [loss, updates.gradient_norm],
        updates={**updates.changes, **{shared[name]: value for name, value in statistics.items()}},
        mode=settings.compile_mode,
    )
    return TrainingStep(parameters.blank(network), shared, updates.state, function, masks)


def log_probabilities(engine: Engine, network: Network, inputs: Inputs, *, mode: str) -> list[Array]:
    """Return the log-probabilities of every level as the engine computes them: what an export is checked against."""
    graph = parameters.map_parameters(network, lambda name, value: engine.shared(value, name))
    config = network.config
    variables = input_variables(engine, config)
    given = [(variables.tag_index, inputs.tag_index)]
    if inputs.features is not None and config.n_features:
        given.append((variables.features, inputs.features.tocsc()))
    if inputs.dense is not None and config.n_dense:
        given.append((variables.dense, inputs.dense))
    function = engine.function([variable for variable, _ in given], graph(variables), mode=mode)
    return list(function(*[value for _, value in given]))
