"""A catalog written to files and cleaned: what the tests of stage 1 share."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.cleaning import clean
from pipeline.config import make_settings
from pipeline.digests import sha256_of
from pipeline.inputs import input_paths

LEVELS = "genre, theme"
HEADER = "item_id,title,tags,genre,theme"
GOOD = "1,Dawn,Zombies;Mall,Horror,Zombies\n2,Day,zombies;bunker,Horror,Zombies\n3,Manhattan,new york,Comedy,City\n"


@dataclass(frozen=True)
class Cleaned:
    """The four files of stage 1, read back."""

    folder: Path
    items: list[dict]
    rejects: list[dict]
    statistics: dict

    @property
    def reasons(self):
        return [(reject["scope"], reject["line"], reject["reason"]) for reject in self.rejects]

    def item(self, item_id):
        (found,) = (item for item in self.items if item["item_id"] == item_id)
        return found


def clean_files(folder, *, role="training", expected=None, catalog=None, clean_settings=None, scoring=None):
    """Clean the files that the settings name, relative to the folder; many rejects are fine, unless told otherwise."""
    catalog = {"items": "items.csv", "levels": LEVELS, **(catalog or {})}
    scoring = dict(scoring or {})
    for section in (catalog, scoring):
        for name in ("items", "tags", "labels", "taxonomy"):
            if section.get(name):
                section[name] = str(folder / section[name])
    settings = make_settings(
        {"catalog": catalog, "scoring": scoring, "clean": {"max_reject_share": 1, **SPLITS, **(clean_settings or {})}}
    )
    if expected is None:
        paths = [file.path for file in input_paths(settings, role=role)]
        expected = {path: sha256_of(Path(path)) if Path(path).exists() else "" for path in paths}
    output = folder / f"clean-{role}"
    output.mkdir(exist_ok=True)
    clean(settings, output, expected=expected, role=role)
    return Cleaned(
        output,
        pq.read_table(output / "items.parquet").to_pylist(),
        pq.read_table(output / "rejects.parquet").to_pylist(),
        json.loads((output / "statistics.json").read_text()),
    )


SPLITS = {"validation_share": 0, "test_share": 0}  # a catalog of three rows has no part to spare


def clean_csv(folder, text, **options):
    """Clean items.csv with this text (or these bytes)."""
    (folder / "items.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return clean_files(folder, **options)
