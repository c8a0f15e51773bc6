"""Parameters by dotted name: walk, replace, count, cast, save and load those of any tree of layers.

A layer is a frozen dataclass. Its fields that are arrays (or an engine's variables) are parameters,
fields that are layers or tuples of layers are walked into, and all other fields are configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from pipeline.errors import ModelError
from pipeline.hdf5_files import created
from pipeline.ops import Array

Tree = TypeVar("Tree")


def flatten(tree: object) -> dict[str, Array]:
    """Return every parameter by its dotted name, in the order of the fields.

    >>> from pipeline.layers import Dense
    >>> [name for name in flatten((Dense(np.ones((2, 1)), np.zeros(1)),))]
    ['0.weight', '0.bias']
    """
    found: dict[str, Array] = {}

    def note(name: str, value: Array) -> Array:
        found[name] = value
        return value

    map_parameters(tree, note)
    return found


def map_parameters(tree: Tree, function: Callable[[str, Array], Array]) -> Tree:
    """Return the tree with function(name, parameter) in place of each parameter."""
    result: Tree = _map(tree, function, "")
    return result


def _map(node: Any, function: Callable[[str, Array], Array], name: str) -> Any:
    if hasattr(node, "dtype"):
        return function(name, node)
    prefix = f"{name}." if name else ""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = [field.name for field in dataclasses.fields(node)]
        changes = {field: _map(getattr(node, field), function, prefix + field) for field in fields}
        return dataclasses.replace(node, **changes)
    if isinstance(node, tuple) and any(_holds_parameters(part) for part in node):
        return tuple(_map(part, function, f"{prefix}{place}") for place, part in enumerate(node))
    return node


def _holds_parameters(node: object) -> bool:
    return hasattr(node, "dtype") or isinstance(node, tuple) or dataclasses.is_dataclass(node)


def layers(tree: object) -> dict[str, object]:
    """Return every layer within the tree by its dotted name, in the order of the fields.

    >>> from pipeline.layers import Dense, LayerNorm
    >>> list(layers((Dense(np.ones((2, 1)), np.zeros(1)), LayerNorm(np.ones(1), np.zeros(1)))))
    ['0', '1']
    """
    if dataclasses.is_dataclass(tree):
        parts = [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    else:
        parts = [(str(place), part) for place, part in enumerate(tree)] if isinstance(tree, tuple) else []
    found: dict[str, object] = {}
    for name, part in parts:
        if dataclasses.is_dataclass(part):
            found[name] = part
        found.update({f"{name}.{inner}": layer for inner, layer in layers(part).items()})
    return found


def blank(tree: Tree) -> Tree:
    """Return the tree with zeros that take no memory in place of each parameter."""
    return map_parameters(tree, lambda _, value: np.broadcast_to(value.dtype.type(0), value.shape))


def replace(tree: Tree, mapping: Mapping[str, Array]) -> Tree:
    """Return the tree with the named parameters replaced.

    Raises ModelError for a name that the tree does not have.
    """
    unknown = set(mapping) - set(flatten(tree))
    if unknown:
        raise ModelError(f"parameter '{min(unknown)}' is not one of {', '.join(flatten(tree))}")
    return map_parameters(tree, lambda name, value: mapping.get(name, value))


def fill(blank: Tree, mapping: Mapping[str, Array]) -> Tree:
    """Return the tree with every parameter taken from the mapping.

    Raises ModelError where a parameter is missing, foreign, or of another shape than the blank one's.
    """
    expected = flatten(blank)
    for name in expected.keys() ^ mapping.keys():
        what = "is missing" if name in expected else "belongs to another network"
        raise ModelError(f"parameter '{name}' {what}; the file was written for another configuration")
    for name, value in mapping.items():
        if value.shape != expected[name].shape:
            raise ModelError(f"parameter '{name}' has shape {value.shape}, the network needs {expected[name].shape}")
    return replace(blank, mapping)


def count(tree: object) -> int:
    """Return the number of values in all parameters.

    >>> from pipeline.layers import Dense
    >>> count(Dense(np.ones((2, 3)), np.zeros(3)))
    9
    """
    return sum(int(np.prod(value.shape)) for value in flatten(tree).values())


def cast(tree: Tree, dtype: str) -> Tree:
    """Return the tree with every parameter in the dtype ('float64' for proofs)."""
    return map_parameters(tree, lambda _, value: value.astype(dtype))


def save(target: h5py.Group | Path, tree: object) -> None:
    """Write every parameter as a dataset of its dotted name, to an HDF5 group or a new file."""
    if isinstance(target, Path):
        with created(target) as file:
            save(file, tree)
        return
    for name, value in flatten(tree).items():
        target.create_dataset(name, data=value)


def load(source: h5py.Group | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the parameters by name, as `save` wrote them; `FeedbackNetwork.load` makes a network of them."""
    if isinstance(source, Path):
        with h5py.File(source, "r") as file:
            return load(file)
    return {str(name): dataset[()] for name, dataset in source.items()}
