"""How long the report of a large catalog takes, and how large it is.

    PYTHONPATH=. python tests/benchmarks/report.py             1,000,000 items
    PYTHONPATH=. python tests/benchmarks/report.py --quick     20,000

The job runs on a catalog of drawn items, a tenth of them labelled wrongly; its report is then made three times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bookkeeping import write_catalog

from pipeline import pointers
from pipeline.config import Settings
from pipeline.report import PAGE, make_report

SECONDS, MEGABYTES = 10.0, 8.0
SETTINGS = """
[catalog]
items = items.parquet
levels = genre, theme
[clean]
validation_share = 0.01
test_share = 0.01
[training]
epochs = 2
batch_size = 1024
[report]
enabled = false
"""


def main() -> int:
    """Measure, print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 items")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is short")
    chosen = parser.parse_args()
    n_items = 20_000 if chosen.quick else 1_000_000
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_catalog(folder / "items.parquet", n_items)
        (folder / "luigi.cfg").write_text(SETTINGS)
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        subprocess.run(
            [sys.executable, "-m", "luigi", "--module", "tasks", "ScoreCatalog"],
            cwd=folder,
            env=environment,
            check=True,
        )
        pointer = pointers.latest(folder / "artifacts")
        assert pointer is not None
        times = []
        for _ in range(3):
            started = time.perf_counter()
            make_report(folder / "artifacts", pointer, folder, Settings().report)
            times.append(time.perf_counter() - started)
        size = (folder / PAGE).stat().st_size / 1e6
    print(f"{n_items:,} items: {median(times):.1f} s (of {', '.join(f'{each:.1f}' for each in times)}), {size:.1f} MB")
    bars = {"report-seconds": (median(times), SECONDS), "report-megabytes": (size, MEGABYTES)}
    for name, (value, goal) in bars.items():
        print(f"bar {name}: {value:.1f} (goal < {goal:g}) {'met' if value < goal else 'missed'}")
    return int(chosen.check and any(value >= goal for value, goal in bars.values()))


if __name__ == "__main__":
    sys.exit(main())
