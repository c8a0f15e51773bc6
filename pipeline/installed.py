"""What is installed, told by a process that imports it: `python -m pipeline.installed theano` prints JSON.

A process of its own, as an import can fail in ways that end it.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

NEEDED = ("numpy", "scipy", "scipy.sparse", "pandas", "h5py", "pyarrow", "pyarrow.parquet", "duckdb", "threadpoolctl")


def installed(engine: str) -> dict[str, Any]:
    """Return the engine's version, compiler and directory of what is compiled, and the threads of each BLAS."""
    for name in NEEDED:
        importlib.import_module(name)
    from threadpoolctl import threadpool_info

    from pipeline.ops import symbolic

    found = symbolic.engine(engine)
    libraries = [
        {"name": each["internal_api"], "version": each["version"], "threads": each["num_threads"]}
        for each in threadpool_info()
    ]
    folder = str(found.root.config.compiledir)
    return {"version": found.version, "compiler": found.compiler, "folder": folder, "libraries": libraries}


if __name__ == "__main__":
    print(json.dumps(installed(sys.argv[1])))
