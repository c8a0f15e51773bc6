"""Arrays, strings and settings in HDF5 groups, read back with suspicion.

A declared size can be a bomb (1,400 bytes of HDF5 can declare 8 TB), so that type, shape and the bytes that
really lie in the file are compared before anything is allocated. Strings are one blob of UTF-8 with offsets:
simple, fast, and nothing in them points elsewhere. Writing the same twice gives the same bytes.
"""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, DTypeLike, NDArray

from pipeline.errors import FeatureError
from pipeline.hashing import utf8


def write_array(group: Any, name: str, array: ArrayLike) -> None:
    """Write an array, contiguous and without times."""
    group.create_dataset(name, data=np.ascontiguousarray(array), track_times=False)


def read_array(group: Any, name: str, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return an array of the group; None in `shape` leaves a length open.

    Raises FeatureError where the array is absent, linked from elsewhere, of another type or shape, or not
    wholly in the file.
    """
    place = f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise FeatureError(f"{place} is not an array of this file; write the file again")
    dataset = group[name]
    fits = len(dataset.shape or ()) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, dataset.shape or (), strict=True)
    )
    if dataset.dtype != np.dtype(dtype) or not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise FeatureError(f"{place} is {dataset.dtype} {dataset.shape}, not {np.dtype(dtype)} ({wanted})")
    stored = dataset.id.get_storage_size()
    if dataset.chunks is not None or dataset.is_virtual or dataset.external or stored != dataset.nbytes:
        raise FeatureError(f"{place} declares {dataset.nbytes} bytes and stores {stored}; the file is damaged")
    return np.asarray(dataset[...])


def write_strings(group: Any, name: str, strings: pa.Array) -> None:
    """Write strings without nulls as a group of `bytes` (UTF-8) and `offsets`."""
    offsets, data = utf8(strings)
    inner = group.create_group(name)
    write_array(inner, "offsets", offsets)
    write_array(inner, "bytes", data)


def read_strings(group: Any, name: str) -> pa.Array:
    """Return the strings of a group of `bytes` and `offsets`. Raises FeatureError where they do not fit."""
    inner = read_group(group, name)
    offsets = read_array(inner, "offsets", np.int64, (None,))
    data = read_array(inner, "bytes", np.uint8, (None,))
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise FeatureError(f"{inner.file.filename}: {inner.name}/offsets do not fit {len(data)} bytes of strings")
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    strings = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
    try:
        strings.validate(full=True)
        return strings.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise FeatureError(f"{inner.file.filename}: {inner.name} does not hold UTF-8 strings: {error}") from None


def read_group(group: Any, name: str) -> Any:
    """Return a group within the group. Raises FeatureError where it is absent or linked from elsewhere."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Group):
        raise FeatureError(f"{group.file.filename}: {group.name.rstrip('/')}/{name} is not a group of this file")
    return group[name]


def write_facts(group: Any, facts: Any) -> None:
    """Write JSON-able facts as the attribute `facts`, keys sorted; less than 64 KB, which an attribute may have."""
    # Bytes of a fixed length: a string would lie in the heap of the file, in which damage makes libhdf5 hang.
    group.attrs["facts"] = np.bytes_(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())


def read_facts(group: Any) -> Any:
    """Return what `write_facts` wrote. Raises FeatureError where it is absent or not JSON."""
    place = f"{group.file.filename}: attribute 'facts' of {group.name}"
    if "facts" not in group.attrs or group.attrs.get_id("facts").shape != ():
        raise FeatureError(f"{place} is absent; write the file again")
    try:
        return json.loads(group.attrs["facts"])
    except (TypeError, ValueError, RecursionError) as error:
        raise FeatureError(f"{place} is not JSON: {error}") from None
