"""A stable hash of strings and of their character n-grams, the same on every platform and Python.

    h(c_1 ... c_m) = mix(1 * P^m + c_1 * P^(m-1) + ... + c_m)   over 64-bit unsigned integers

The c are Unicode code points, P = 6364136223846793005 (Knuth's multiplier), and mix is the finaliser of
MurmurHash3 (Appleby, public domain). The leading 1 tells strings of different length apart. The sum is a
polynomial, so that all n-grams of all strings are hashed by a few array operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import arrow
from pipeline.errors import FeatureError
from pipeline.sparse import csr

_MULTIPLIER = np.uint64(6364136223846793005)
_MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)
_FEW = 4_096  # n-grams that are sorted sooner than SciPy makes a matrix of them


class NGrams(NamedTuple):
    """N-grams of one length n: whose they are, where they start, and their hash."""

    n: int
    owner: NDArray[np.int64]  # index of the string
    start: NDArray[np.int64]  # position in the code points of all strings
    hashes: NDArray[np.uint64]


def utf8(strings: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return offsets (n + 1,), from 0, and the UTF-8 bytes of all strings. Raises FeatureError for a null.

    >>> offsets, data = utf8(pa.array(["é", "", "ab"]))
    >>> offsets.tolist(), data.tobytes()
    ([0, 2, 2, 4], b'\\xc3\\xa9ab')
    """
    if strings.null_count:
        raise FeatureError(f"{strings.null_count} of {len(strings)} strings are null; drop them first")
    strings = strings.cast(pa.large_string())
    if len(strings) == 0:
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def code_points(strings: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return offsets (n + 1,) and the code points of all strings, in order. Raises FeatureError for bad UTF-8.

    >>> offsets, points = code_points(pa.array(["é", "", "ab"]))
    >>> offsets.tolist(), points.tolist()
    ([0, 1, 1, 3], [233, 97, 98])
    """
    byte_offsets, data = utf8(strings)
    try:
        text = data.tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FeatureError(f"a string is not UTF-8: {error}") from None
    points = np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4")).astype(np.uint64)
    # Every character has one byte that is not 10xxxxxx.
    starts = np.concatenate([[0], np.cumsum((data & 0xC0) != 0x80)])
    return starts[byte_offsets], points


def hash_strings(strings: pa.Array) -> NDArray[np.uint64]:
    """Return the hash of each string, (n,).

    >>> [hex(int(h)) for h in hash_strings(pa.array(["", "ab"]))]
    ['0xb456bcfc34c2cb2c', '0xf1b43de5e4adc973']
    """
    offsets, points = code_points(strings)
    lengths = np.diff(offsets)
    powers = _powers(int(lengths.max(initial=0)) + 1)
    behind = np.repeat(offsets[1:], lengths) - np.arange(len(points)) - 1
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(points * powers[behind], dtype=np.uint64)])
    return _mix(powers[lengths] + sums[offsets[1:]] - sums[offsets[:-1]])


def ngrams(strings: pa.Array, *, shortest: int, longest: int) -> Iterator[NGrams]:
    """Yield the n-grams of every string with a space put at both ends, one length n at a time.

    A string shorter than `shortest` (with its spaces) counts once, as a whole, so that it is not lost.

    >>> [(grams.n, len(grams.start)) for grams in ngrams(pa.array(["ab", ""]), shortest=3, longest=5)]
    [(2, 1), (3, 2), (4, 1)]
    """
    offsets, points = code_points(spaced(strings))
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    remaining = offsets[1:][owner] - np.arange(len(points))
    hashes = np.ones(len(points), np.uint64)
    for n in range(1, longest + 1):
        n_starts = max(0, len(points) - n + 1)
        hashes = hashes[:n_starts] * _MULTIPLIER + points[n - 1 :]
        whole = lengths[owner[:n_starts]] == n if n < shortest else True
        start = np.flatnonzero((remaining[:n_starts] >= n) & whole)
        if len(start):
            yield NGrams(n, owner[start], start, _mix(hashes[start]))


def spaced(strings: pa.Array) -> pa.Array:
    """Return the strings with a space at both ends, which marks where a tag or word begins and ends."""
    nothing, space = arrow.strings(["", " "]).cast(pa.large_string())
    return pc.binary_join_element_wise(nothing, strings.cast(pa.large_string()), nothing, space)


def hashed_counts(strings: pa.Array, *, shortest: int, longest: int, width: int) -> Any:
    """Return how often each bucket (hash modulo width) is hit by n-grams, CSR float32 (n_strings, width)."""
    from scipy.sparse import coo_matrix

    grams = list(ngrams(strings, shortest=shortest, longest=longest))
    rows = np.concatenate([np.zeros(0, np.int64), *(g.owner for g in grams)]).astype(np.int32)
    buckets = [(g.hashes % np.uint64(width)).astype(np.int32) for g in grams]
    columns = np.concatenate([np.zeros(0, np.int32), *buckets])
    if len(rows) <= _FEW:
        places, counts = np.unique(rows * np.int64(width) + columns, return_counts=True)
        ends = np.searchsorted(places, np.arange(len(strings) + 1) * width)
        return csr(counts, places % width, ends, n_columns=width)
    return coo_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(strings), width)).tocsr()


def _powers(n: int) -> NDArray[np.uint64]:
    """Return P^0 ... P^(n-1), modulo 2^64."""
    factors = np.full(n, _MULTIPLIER)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return MurmurHash3's 64-bit finaliser of each value."""
    for mixer in _MIXERS:
        values = (values ^ (values >> _SHIFT)) * mixer
    return values ^ (values >> _SHIFT)
