"""Stage 4: can libhdf5 read this file to its end? Asked in a child process, which a crafted one may crash or hang.

Run as a program (`python -P probe.py FILE`) it reads every attribute of every object of an HDF5 file; it imports
nothing of the library. Model files of format 1 have strings of any length in attributes: they lie in a heap that
nothing checks.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

MAX_SECONDS = 30
MAX_BYTES = 8 << 30  # of memory


def is_readable(path: Path, *, max_seconds: float = MAX_SECONDS) -> bool:
    """Return whether a child process reads all attributes of the file, in time and without an error."""
    command = [sys.executable, "-P", __file__, str(path)]
    try:
        return subprocess.run(command, capture_output=True, timeout=max_seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def read_attributes(path: str) -> int:
    """Read every attribute of the file; return how many there are."""
    import h5py

    found = []
    with h5py.File(path, "r") as file:
        found += [file.attrs[name] for name in file.attrs]
        file.visititems(lambda _, node: found.extend(node.attrs[name] for name in node.attrs))
    return len(found)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    read_attributes(sys.argv[1])
