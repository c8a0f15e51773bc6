"""Stage 3: gradients become updates, of whole parameters or only of the rows of a table that a batch touches.

`minimise` takes any scalar expression and any parameters; it knows nothing of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.errors import TrainingError
from pipeline.ops import Array
from pipeline.ops.symbolic import Engine, Variable

# From gradients by the name of their parameter to those that take their place.
ChangeGradients = Callable[[dict[str, Variable]], Mapping[str, Variable]]


@dataclass(frozen=True)
class Parameter:
    """What training changes: a shared variable, or some rows of one."""

    name: str
    shared: Variable
    value: Variable  # what the loss is differentiated by: the shared variable itself, or shared[index]
    index: Variable | None  # int32, distinct; None: the whole of it
    padded: bool = False  # row 0 of the table is padding, which never learns


def whole(name: str, shared: Variable) -> Parameter:
    """Return a parameter that every step changes as a whole."""
    return Parameter(name, shared, shared, None)


def touched_rows(engine: Engine, name: str, table: Variable, index: Variable, *, padded: bool = False) -> Parameter:
    """Return a table of which a step changes only the rows `index` (distinct); all others keep value and state.

    A row whose gradient and state are zero stays as it is to the bit: the padding row of a table stays zero. With
    `padded` that is row 0, also where a change of the gradients would move it.
    """
    return Parameter(name, table, engine.rows(table, index), index, padded)


class Memory:
    """The state of an optimizer for one parameter; for a table by rows, a row of state for each of its rows."""

    def __init__(self, engine: Engine, parameter: Parameter) -> None:
        self.engine = engine
        self.parameter = parameter
        self.slots: dict[str, Variable] = {}
        self.updates: dict[Variable, Variable] = {}

    def step(self, name: str, advance: Callable[[Variable], Variable], *, scalar: bool = False) -> Variable:
        """Return advance(state) and store it; the state starts from zeros.

        It has the parameter's shape; with `scalar` it is one number, or one a row, returned as a column.
        """
        shared, index = self.parameter.shared, self.parameter.index
        shape = shared.get_value(borrow=True).shape
        if scalar:
            shape = () if index is None else shape[:1]
        slot = self.engine.shared(np.zeros(shape, shared.dtype), f"{self.parameter.name}.{name}")
        state = slot if index is None else self.engine.rows(slot, index)
        value = advance(state)
        self.slots[slot.name] = slot
        self.updates[slot] = value if index is None else self.engine.set_rows(state, value)
        return self.engine.column(value) if scalar and index is not None else value


class Optimizer(Protocol):
    """A rule that turns a gradient into a change."""

    def change(self, memory: Memory, gradient: Variable, learning_rate: Variable) -> Variable:
        """Return what is added to the parameter (or its rows), in the gradient's shape."""


@dataclass(frozen=True)
class Adam:
    """Adam; each row of a table counts its own steps, so that a rare row starts right.

    Source: Kingma and Ba 2015, arXiv 1412.6980.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def change(self, memory: Memory, gradient: Variable, learning_rate: Variable) -> Variable:
        """Return -rate * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)."""
        o = memory.engine
        beta1, beta2, one = (o.constant(number, gradient) for number in (self.beta1, self.beta2, 1.0))
        first = memory.step("first_moment", lambda m: beta1 * m + (one - beta1) * gradient)
        second = memory.step("second_moment", lambda v: beta2 * v + (one - beta2) * gradient * gradient)
        count = memory.step("count", lambda t: t + one, scalar=True)
        scale = o.sqrt(second / (one - beta2**count)) + o.constant(self.epsilon, gradient)
        return -learning_rate / (one - beta1**count) * first / scale


@dataclass(frozen=True)
class AdaGrad:
    """AdaGrad. Source: Duchi et al. 2011, Journal of Machine Learning Research 12."""

    epsilon: float = 1e-8

    def change(self, memory: Memory, gradient: Variable, learning_rate: Variable) -> Variable:
        """Return -rate * gradient / (sqrt(sum of squared gradients so far) + epsilon)."""
        o = memory.engine
        total = memory.step("squares", lambda squares: squares + gradient * gradient)
        return -learning_rate * gradient / (o.sqrt(total) + o.constant(self.epsilon, gradient))


@dataclass(frozen=True)
class RowWise:
    """AdaGrad with one step size for each row of a table, Adam for all that is no table.

    A row moves along its gradient: classes that a rare feature says little about hardly move, where a step size for
    every element would move them as far as the others. So a wide path comes near the margin of LinearSVC. Source:
    Naumov et al. 2019, arXiv 1906.00091, and its row-wise AdaGrad.
    """

    epsilon: float = 1e-8

    def change(self, memory: Memory, gradient: Variable, learning_rate: Variable) -> Variable:
        """Return -rate * gradient / (sqrt(sum of the row's mean squared gradients so far) + epsilon)."""
        if memory.parameter.index is None:
            return Adam(epsilon=self.epsilon).change(memory, gradient, learning_rate)
        o = memory.engine
        mean = o.mean(gradient * gradient, axis=1)
        total = memory.step("row_squares", lambda squares: squares + mean, scalar=True)
        return -learning_rate * gradient / (o.sqrt(total) + o.constant(self.epsilon, gradient))


OPTIMIZERS: Mapping[str, Callable[[], Optimizer]] = {"adam": Adam, "adagrad": AdaGrad, "row_wise": RowWise}


class Updates(NamedTuple):
    """What a step changes: for `Engine.function`."""

    changes: dict[Variable, Variable]  # shared variable -> its next value
    gradient_norm: Variable  # before clipping
    state: dict[str, Variable]  # the optimizer's own shared variables, by name


def minimise(
    engine: Engine,
    cost: Variable,
    wanted: Sequence[Parameter],
    *,
    optimizer: Optimizer,
    learning_rate: Variable | float,
    clip_norm: float = 0.0,
    weight_decay: float = 0.0,
    change_gradients: ChangeGradients | None = None,
) -> Updates:
    """Return the updates of one step that make `cost` smaller.

    The gradients of all parameters together are scaled down to clip_norm (0: never). Weight decay is
    decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101), and leaves vectors (biases, gains) alone.
    `change_gradients` sees the gradients before they are clipped; those that it returns take the place of those of
    the same name. Raises TrainingError where it returns another name, dtype or number of dimensions.
    """
    gradients = engine.grad(cost, [parameter.value for parameter in wanted])
    if change_gradients is not None:
        gradients = _changed_gradients(engine, wanted, gradients, change_gradients)
    norm = global_norm(engine, gradients)
    if clip_norm:
        scale = engine.constant(clip_norm, norm) / engine.maximum(norm, clip_norm)
        gradients = [gradient * scale for gradient in gradients]
    changes: dict[Variable, Variable] = {}
    state: dict[str, Variable] = {}
    for parameter, gradient in zip(wanted, gradients, strict=True):
        memory = Memory(engine, parameter)
        rate = engine.constant(learning_rate, gradient) if isinstance(learning_rate, float) else learning_rate
        change = optimizer.change(memory, gradient, rate)
        if weight_decay and parameter.value.ndim > 1:
            change -= rate * engine.constant(weight_decay, gradient) * parameter.value
        changes[parameter.shared] = _changed(engine, parameter, change)
        changes.update(memory.updates)
        state.update(memory.slots)
    return Updates(changes, norm, state)


def global_norm(engine: Engine, gradients: Sequence[Variable]) -> Variable:
    """Return the square root of the sum of all squares, a scalar."""
    total: Any = 0
    for gradient in gradients:
        total = engine.sum(gradient * gradient) + total
    return engine.sqrt(total)


def _changed_gradients(
    engine: Engine, wanted: Sequence[Parameter], gradients: Sequence[Variable], change: ChangeGradients
) -> list[Variable]:
    given = {parameter.name: gradient for parameter, gradient in zip(wanted, gradients, strict=True)}
    changed = change(dict(given))
    if unknown := changed.keys() - given.keys():
        raise TrainingError(f"change_gradients returns '{min(unknown)}', which is not one of {', '.join(given)}")
    for name, gradient in changed.items():
        found, expected = (gradient.dtype, gradient.ndim), (given[name].dtype, given[name].ndim)
        if found != expected:
            raise TrainingError(
                f"change_gradients makes {name} {found[0]} of {found[1]} dimensions; its gradient is "
                f"{expected[0]} of {expected[1]}"
            )
    return [_without_padding(engine, parameter, {**given, **changed}[parameter.name]) for parameter in wanted]


def _without_padding(engine: Engine, parameter: Parameter, gradient: Variable) -> Variable:
    """Return the gradient with zeros for the padding row."""
    if not parameter.padded or parameter.index is None:
        return gradient
    return gradient * engine.column(engine.cast(parameter.index > 0, gradient))


def _changed(engine: Engine, parameter: Parameter, change: Variable) -> Variable:
    return parameter.shared + change if parameter.index is None else engine.add_to_rows(parameter.value, change)


def snapshot(shared: Mapping[str, Variable]) -> dict[str, Array]:
    """Return copies of the values of shared variables, by name."""
    return {name: variable.get_value(borrow=False) for name, variable in shared.items()}
