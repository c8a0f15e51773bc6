"""Layers as graphs: what the tests of ops, layers, network, objective and optimizer share."""

from importlib.util import find_spec

import numpy as np
import pytest
from scipy import sparse

from pipeline import parameters
from pipeline.ops import symbolic

ENGINES = [name for name in ("theano", "pytensor") if find_spec(name) is not None]
every_engine = pytest.mark.parametrize("engine", ENGINES)


def variable_like(engine, value, name="x"):
    """Return an input variable of the engine for values like this one."""
    if sparse.issparse(value):
        return engine.sparse_variable(name, dtype=str(value.dtype))
    return engine.variable(name, dtype=str(value.dtype), ndim=value.ndim)


def as_graph(engine, layer):
    """Return the layer with shared variables for its arrays."""
    return parameters.map_parameters(layer, lambda name, value: engine.shared(value, name))


def run(engine, function, *values, mode="fast_compile"):
    """Return what the engine computes for function(*values); the values become inputs of the graph."""
    engine = symbolic.engine(engine)
    variables = [variable_like(engine, value, f"x{place}") for place, value in enumerate(values)]
    output = as_graph(engine, function)(*variables)
    outputs = list(output) if isinstance(output, tuple) else [output]
    results = engine.function(variables, outputs, mode=mode)(*values)
    return tuple(results) if isinstance(output, tuple) else results[0]


def gradient_errors(engine, layer, *values, seed=0):
    """Return by name the relative error of the engine's gradients against central differences of the NumPy layer.

    The scalar is the sum of the layer's output (or outputs) times drawn weights; all is in float64. Dense
    inputs of floats are differentiated too, as `x0`, `x1` ...
    """
    engine = symbolic.engine(engine)
    layer = parameters.cast(layer, "float64")
    rng = np.random.default_rng(seed)
    outputs = layer(*values)
    weights = [rng.standard_normal(np.shape(part)) for part in _parts(outputs)]
    free = {f"x{place}": value for place, value in enumerate(values) if _is_dense_float(value)}

    def cost_of(arrays):
        changed = parameters.replace(layer, {name: value for name, value in arrays.items() if name not in free})
        inputs = [arrays.get(f"x{place}", value) for place, value in enumerate(values)]
        return sum(float((part * weight).sum()) for part, weight in zip(_parts(changed(*inputs)), weights, strict=True))

    found = _engine_gradients(engine, layer, values, weights, free)
    arrays = {**parameters.flatten(layer), **free}
    return {name: _relative(found[name], _differences(cost_of, arrays, name)) for name in arrays}


def _parts(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _is_dense_float(value):
    return not sparse.issparse(value) and value.dtype.kind == "f"


def _engine_gradients(engine, layer, values, weights, free):
    graph = as_graph(engine, layer)
    variables = [variable_like(engine, value, f"x{place}") for place, value in enumerate(values)]
    cost = sum((part * weight).sum() for part, weight in zip(_parts(graph(*variables)), weights, strict=True))
    wanted = {**parameters.flatten(graph), **{name: variables[int(name[1:])] for name in free}}
    gradients = engine.grad(cost, list(wanted.values()))
    return dict(zip(wanted, engine.function(variables, gradients, mode="fast_compile")(*values), strict=True))


def _differences(cost_of, arrays, name, *, step=1e-5):
    gradient = np.zeros_like(arrays[name])
    for place in np.ndindex(gradient.shape):
        moved = [arrays[name].copy() for _ in range(2)]
        moved[0][place] += step
        moved[1][place] -= step
        upper, lower = (cost_of({**arrays, name: value}) for value in moved)
        gradient[place] = (upper - lower) / (2 * step)
    return gradient


def _relative(found, expected):
    scale = np.linalg.norm(found) + np.linalg.norm(expected)
    return 0.0 if scale == 0 else float(np.linalg.norm(found - expected) / scale)
