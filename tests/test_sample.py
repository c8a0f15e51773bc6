"""The embedded catalog: its size, and that no tag spells a label."""

import csv
import re
from collections import Counter

from pipeline.config_catalog import SAMPLE


def films() -> list[dict[str, str]]:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row]
    return [row for row in rows if row["tags"].count(";") >= 4]


def plain(text: str) -> str:
    """Return text in small letters, without hyphens and plurals."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join(word.removesuffix("s") for word in words)


def test_the_catalog_is_large_and_deep_enough():
    labelled = [film for film in films() if film["genre"]]
    assert len(films()) >= 600
    assert len({film["genre"] for film in labelled}) >= 10
    assert len({(film["genre"], film["subgenre"]) for film in labelled}) >= 35
    themes = Counter((film["genre"], film["subgenre"], film["theme"]) for film in labelled if film["theme"] not in "-")
    assert len(themes) >= 90
    assert min(themes.values()) >= 4


def test_some_films_are_unlabelled_and_some_stop_at_the_subgenre():
    unlabelled = sum(not film["genre"] for film in films())
    assert 0.08 < unlabelled / len(films()) < 0.12
    assert sum(film["theme"] == "-" for film in films()) >= 10


def test_every_film_has_5_to_15_tags():
    assert {5 <= len(film["tags"].split(";")) <= 15 for film in films()} == {True}


def test_no_tag_spells_a_label_of_its_film():
    for film in films():
        for tag in map(plain, film["tags"].split(";")):
            for level in ("genre", "subgenre", "theme"):
                assert not film[level] or tag != plain(film[level]), (film["title"], tag)
            assert not film["genre"] or f" {plain(film['genre'])} " not in f" {tag} ", (film["title"], tag)
