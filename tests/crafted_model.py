"""Model files that were changed within HDF5 and carry the checksum that they then need."""

import json
import shutil

import h5py
import numpy as np

from pipeline import container


def craft(saved, path, change, *, version=container.VERSION):
    """Change a model file within HDF5, and give it the checksum that it then needs."""
    shutil.copyfile(saved, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with path.open("r+b") as stream:
        stream.write(container._header(version, *container._digest(path)))
    return path


def with_json(name, edit):
    def change(file):
        value = json.loads(file[name][:].tobytes())
        del file[name]
        container.write_json(file, name, edit(value))

    return change


def with_bytes(name, data):
    def change(file):
        del file[name]
        file.create_dataset(name, data=np.frombuffer(data, dtype=np.uint8))

    return change


def with_parameter(name, **dataset):
    def change(file):
        del file[f"parameters/{name}"]
        if dataset:
            file.create_dataset(f"parameters/{name}", **dataset)

    return change
