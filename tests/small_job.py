"""The luigi command on a tiny catalog, in a directory of its own: what the tests of the job share."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
STAGES = ("clean", "features", "train", "export", "score")
DATE = "2026-11-23"
SETTINGS = """
[catalog]
items = items.csv
levels = genre, theme
split = split
[features]
hash_width = 16
[network]
hidden = 4
[training]
compile_mode = fast_compile
epochs = 1
batch_size = 8
[report]
enabled = false
[storage]
tries = 1
[core]
local_scheduler = true
log_level = WARNING
autoload_range = true
"""
KINDS = {"horror,zombies": "zombie;gore", "horror,ghosts": "ghost;house", "drama,family": "love;house"}


def write_items(path: Path, *, n: int = 30, first: str = "undead") -> None:
    rows = ["item_id,title,tags,genre,theme,split"]
    for number in range(n):
        labels, tags = list(KINDS.items())[number % 3]
        split = ("train", "train", "train", "validation", "test")[number % 5]
        rows.append(f"{number},film {number},{tags};{first if number == 0 else 'seen'},{labels},{split}")
    rows.append(f"{n},unlabelled,zombie;gore,,,train")
    path.write_text("\n".join(rows) + "\n")


@dataclass
class Project:
    """A directory with a catalog, a luigi.cfg and the results of runs."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "artifacts"

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "luigi", "--module", "tasks", *(flags or ("ScoreCatalog", "--date", DATE))]

    def known_environment(self) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith("LUIGI_")}
        return {**known, "PYTHONPATH": str(PROJECT), **self.environment}

    def start(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*flags),
            cwd=self.folder,
            env=self.known_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *flags: str) -> tuple[int, str, str]:
        process = self.start(*flags)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def score(self, *flags: str, date: str = DATE) -> str:
        code, out, err = self.run("ScoreCatalog", "--date", date, *flags)
        assert code == 0, err
        return out

    def results(self) -> dict[Path, int]:
        """Return the manifests of all published directories, and when they were written."""
        manifests = (path for stage in STAGES for path in sorted(self.root.glob(f"{stage}/*/manifest.json")))
        return {path: path.stat().st_mtime_ns for path in manifests}

    def stages_since(self, before: dict[Path, int]) -> list[str]:
        """Return the stages of the directories that were published since, in their order."""
        return [path.parts[-3] for path, written in self.results().items() if before.get(path) != written]
