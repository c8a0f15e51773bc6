"""Suite 10: nights in a row whose catalogs change: bounded files, consistent results, and what is gone is told."""

import random

import pyarrow.parquet as pq
from nights import LONGER, Night, rounds

from pipeline import artifacts, pointers

FLAGS = ("--catalog-split", "", "--storage-keep-runs", "3", "--gate-enabled", "false", "--training-warm-start", "last")
GENRES = {"horror": ("zombies", "ghosts"), "drama": ("family", "court"), "comedy": ("school",)}


class Catalog:
    """Items that come, go and are told otherwise, in a taxonomy that moves."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.next_id = rng, 0
        self.places = {theme: genre for genre, themes in GENRES.items() for theme in themes}
        self.items: dict[int, tuple[str, str]] = {}  # theme and tags
        self.grow(60)

    def grow(self, n: int) -> None:
        for _ in range(n):
            theme = self.rng.choice(sorted(self.places))
            self.items[self.next_id] = (theme, self.tags(theme))
            self.next_id += 1

    def tags(self, theme: str) -> str:
        return f"{theme} story;{theme} film;tag {self.rng.randrange(20)}"

    def change(self, night: int) -> None:
        """Remove, add, re-tag and relabel items; add, rename or move a node of the taxonomy."""
        for item in self.rng.sample(sorted(self.items), 5):
            del self.items[item]
        self.grow(6)
        for item in self.rng.sample(sorted(self.items), 4):
            theme = self.rng.choice(sorted(self.places))
            self.items[item] = (theme, self.tags(theme))
        theme = self.rng.choice(sorted(self.places))
        if night % 3 == 0:
            self.places[f"theme {night}"] = self.rng.choice(sorted(GENRES))
            self.grow(8)
        elif night % 3 == 1 and len(self.places) > 5:
            self.rename(theme, f"{theme} anew")
        else:
            self.places[theme] = self.rng.choice(sorted(GENRES))

    def rename(self, theme: str, name: str) -> None:
        self.places[name] = self.places.pop(theme)
        self.items = {item: (name if old == theme else old, tags) for item, (old, tags) in self.items.items()}

    def text(self) -> str:
        rows = ["item_id,title,tags,genre,theme"]
        rows += [
            f"{item},film {item},{tags},{self.places[theme]},{theme}" for item, (theme, tags) in self.items.items()
        ]
        return "\n".join(rows) + "\n"


def check(night: Night, catalog: Catalog, date: str) -> None:
    """Assert that the results are whole, of this date, and of all items and no others."""
    pointer = pointers.latest(night.root)
    assert pointer.date == date
    folder = artifacts.verify(night.root / pointer.folder)
    scores = pq.read_table(folder / "scores.parquet")
    assert sorted(scores["item_id"].to_pylist()) == sorted(catalog.items)
    assert (night.root / "published" / "latest_model.h5").is_file()
    night.verify()


def sizes(night: Night) -> tuple[int, int]:
    """Return how many files there are below the root, and their bytes."""
    files = [path for path in night.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(files), sum(path.stat().st_size for path in files)


@rounds(4, 30)
def test_nights_in_a_row_stay_whole_and_bounded_while_the_catalog_changes(server, tmp_path, figure, n):
    catalog, night = Catalog(random.Random(10)), Night(tmp_path / "night")
    night.folder.mkdir()
    (night.folder / "luigi.cfg").write_text(LONGER)
    found = []
    for at in range(n):
        date = f"2026-12-{at + 1:02}"
        (night.folder / "items.csv").write_text(catalog.text())
        night.succeeds("ScoreCatalog", "--date", date, "--clean-accept-drift", "true", *FLAGS)
        check(night, catalog, date)
        found.append(sizes(night))
        catalog.change(at)
    said = night.log.read_text()
    warm, gone = said.count("starts from"), said.count("classes that the earlier model knew and this one does not")
    assert gone
    most = max(files for files, _ in found[-3:])
    figure(
        f"10 nights: {n} in a row, each whole; files {found[min(3, n - 1)][0]} after the fourth night, {most} at the "
        f"end, {found[-1][1] / 1e6:.1f} MB; {warm} warm starts, {gone} told of removed classes"
    )
    if n > 6:
        assert most < 1.5 * found[5][0]
    assert (night.root / "published" / "latest").samefile(night.root / pointers.latest(night.root).folder)
