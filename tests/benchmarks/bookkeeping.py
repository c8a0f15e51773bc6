"""How much of a night goes into being careful: fingerprints, manifests, checksums, syncs, locks, ledger.

    PYTHONPATH=. python tests/benchmarks/bookkeeping.py             1,000,000 items
    PYTHONPATH=. python tests/benchmarks/bookkeeping.py --quick     20,000

The job runs in this process; the clock stands around every call into the bookkeeping, the outermost of nested ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GOAL = 0.03
LABELS = [(f"genre {at % 20}", f"theme {at % 120}") for at in range(120)]


def write_catalog(path: Path, n_items: int) -> None:
    """Write items with ten tags each, which tell their labels."""
    rng = np.random.default_rng(7)
    kind = rng.integers(0, len(LABELS), n_items)
    tags = np.char.add("tag ", (kind[:, None] * 50 + rng.integers(0, 150, (n_items, 10))).astype(str))
    columns = {
        "item_id": pa.array(np.arange(n_items)),
        "title": pa.array([f"item {at}" for at in range(n_items)]),
        "tags": pa.array([";".join(row) for row in tags]),
        "genre": pa.array([LABELS[at][0] for at in kind]),
        "theme": pa.array([LABELS[at][1] for at in kind]),
    }
    pq.write_table(pa.table(columns), path)


class Clock:
    """Seconds spent within the functions that it stands around, by name; nested ones count once."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.within = False

    def around(self, place: Any, name: str) -> None:
        """Put the clock around a function of a module."""
        function: Callable[..., Any] = getattr(place, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            if self.within:
                return function(*arguments, **options)
            self.within, started = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started
                self.within = False

        setattr(place, name, timed)


def run_job(folder: Path) -> tuple[float, Clock]:
    """Run the job, and return its seconds and the clock."""
    os.chdir(folder)
    from luigi.cmdline import luigi_run

    from pipeline import artifacts, files, leases, ledger, locks, pointers
    from tasks import identities, records

    clock = Clock()
    for place, name in (
        (identities, "current_identity"),
        (artifacts, "seal"),
        (artifacts, "verify"),
        (artifacts, "verified"),
        (artifacts, "clear_work"),
        (artifacts, "sweep"),
        (files, "write_file"),
        (records, "verified"),
        (ledger, "write"),
        (leases, "hold"),
        (locks, "take"),
        (pointers, "point"),
    ):
        clock.around(place, name)
    started = time.perf_counter()
    try:
        luigi_run(["--module", "tasks", "ScoreCatalog", "--date", "2026-11-23"])
    except SystemExit as ended:
        if ended.code:
            raise
    return time.perf_counter() - started, clock


def main() -> int:
    """Measure, print a table and the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 items")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is short")
    chosen = parser.parse_args()
    n_items = 20_000 if chosen.quick else 1_000_000
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_catalog(folder / "items.parquet", n_items)
        settings = "[catalog]\nitems = items.parquet\nlevels = genre, theme\n[training]\nepochs = 5\nbatch_size = 256\n"
        (folder / "luigi.cfg").write_text(settings)
        seconds, clock = run_job(folder)
    for name, spent in clock.seconds.most_common():
        print(f"{name:<20} {spent:8.2f} s  {spent / seconds:7.2%}")
    share = clock.seconds.total() / seconds
    met = "met" if share < GOAL else "missed"
    print(f"{n_items:,} items: {seconds:,.1f} s, of which bookkeeping {clock.seconds.total():.2f} s")
    print(f"bar bookkeeping: {share:.2%} (goal < {GOAL:.0%}) {met}")
    return int(chosen.check and share >= GOAL)


if __name__ == "__main__":
    sys.exit(main())
