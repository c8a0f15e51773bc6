"""How much memory a stage took at its peak, its child processes told apart."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

OWN = Path("/proc/self")


def forget_peak() -> None:
    """Begin a new peak of this process, where Linux allows it: several stages may run in one process."""
    with suppress(OSError):
        (OWN / "clear_refs").write_text("5")


def peak_mb() -> float:
    """Return the largest resident set of this process in MB since `forget_peak`."""
    # Not ru_maxrss: it begins with what the parent had when it forked.
    (line,) = (line for line in (OWN / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def children_peak_mb() -> float:
    """Return the largest resident set in MB of all children that have ended, each from when it was forked."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1)
