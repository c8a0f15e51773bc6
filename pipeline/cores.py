"""Stage 5: how many processes may work at once: physical cores, and of them those that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

PROC, SYS = Path("/proc"), Path("/sys")
# Each process has one thread: NumPy's BLAS is slower with more on batches of this size, and bytes repeat.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM", "NUMEXPR")}


def n_workers(wanted: int, *, sharing: int = 1) -> int:
    """Return how many processes score: `wanted`, or where that is 0 all cores, shared by as many jobs at once."""
    return wanted or max(1, usable_cores() // sharing)


def usable_cores(*, proc: Path = PROC, system: Path = SYS) -> int:
    """Return the physical cores that this process may use, at least 1.

    The set of processors it is bound to counts, two threads of one core once, and the limits of its control groups.
    """
    processors = os.sched_getaffinity(0)
    cores = {_core_of(processor, system) for processor in processors}
    return max(1, min(len(cores), *_limits(proc, system)))


def _core_of(processor: int, system: Path) -> str:
    """Return the processors that share a core with this one, as the kernel lists them."""
    topology = system / f"devices/system/cpu/cpu{processor}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # of new kernels, of old ones
        if text := _read(topology / name):
            return text
    return str(processor)


def _limits(proc: Path, system: Path) -> list[int]:
    """Return how many processors' worth of time each control group leaves, whole ones; a large number for none."""
    found = [10**6]
    for line in _read(proc / "self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        root = system / "fs/cgroup" / (kinds if kinds else "")
        quota = _quota_1 if kinds else _quota_2
        group = root / path.strip("/")
        # A group within a container may be called as the host calls it: then only the root is there.
        found += [limit for folder in (group, *group.parents) if (limit := quota(folder, root)) is not None]
    return found


def _quota_2(folder: Path, root: Path) -> int | None:
    """Return the limit of a group of version 2."""
    return _whole(_read(folder / "cpu.max").split) if folder.is_relative_to(root) else None


def _quota_1(folder: Path, root: Path) -> int | None:
    """Return the limit of a group of version 1."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    return _whole(lambda: [_read(folder / name) for name in names]) if folder.is_relative_to(root) else None


def _whole(words: Callable[[], list[str]]) -> int | None:
    """Return quota over period, at least 1; None where there is no limit.

    >>> _whole("250000 100000".split), _whole("max 100000".split), _whole("".split)
    (2, None, None)
    """
    found = words()
    if len(found) != 2 or not all(word.isdigit() for word in found):
        return None
    return max(1, int(found[0]) // max(1, int(found[1])))


def _read(path: Path) -> str:
    """Return the text of a file of the kernel; nothing where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
