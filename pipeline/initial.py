"""First values of parameters: drawn with an rng; blank without one (zeros that take no memory), to be replaced."""

from __future__ import annotations

import numpy as np

from pipeline.ops import Array

Rng = np.random.Generator | None


def normal(shape: tuple[int, ...], rng: Rng) -> Array:
    """Return float32 draws of deviation 0.1; blank without rng."""
    return blank(shape) if rng is None else rng.standard_normal(shape, np.float32) * np.float32(0.1)


def glorot(shape: tuple[int, int], rng: Rng, *, n_blocks: int = 1) -> Array:
    """Return float32 draws, uniform within sqrt(6 / (n_in + n_out)), side by side n_blocks times; blank without rng.

    Source: Glorot and Bengio 2010, AISTATS.
    """
    n_in, n_out = shape
    if rng is None:
        return blank((n_in, n_blocks * n_out))
    bound = np.sqrt(6 / (n_in + n_out))
    return np.concatenate([rng.uniform(-bound, bound, shape).astype(np.float32) for _ in range(n_blocks)], axis=1)


def filled(shape: tuple[int, ...], value: float, rng: Rng) -> Array:
    """Return an array of one value; blank without rng."""
    return blank(shape) if rng is None else np.full(shape, value, np.float32)


def blank(shape: tuple[int, ...]) -> Array:
    """Return zeros of any shape in four bytes of memory.

    >>> blank((10**6, 10**6)).strides
    (0, 0)
    """
    return np.broadcast_to(np.float32(0), shape)
