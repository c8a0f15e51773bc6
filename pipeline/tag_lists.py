"""Lists that go with the rules for tags: aliases, stops, names of labels. They travel in the model file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.config_catalog import CleanSettings
from pipeline.errors import CatalogError
from pipeline.spelling import normalise
from pipeline.streams import MARKED, TextStream

ARROW = "->"
MAX_BYTES = 64 << 20  # of a file of aliases or stops


@dataclass(frozen=True)
class TagLists:
    """Lists of clean tags."""

    aliases: Mapping[str, str] = field(default_factory=dict)  # tag -> the tag that stands for it, which is no alias
    stops: frozenset[str] = frozenset()  # are dropped
    labels: frozenset[str] = frozenset()  # names of labels as tags, where [clean] drop_label_tags; are dropped

    @classmethod
    def read(cls, clean: CleanSettings, *, expected: Mapping[str, str]) -> TagLists:
        """Return the lists of the settings and of the files that they name; `expected` has the files' SHA-256.

        Raises CatalogError for a file that cannot be read, a line without an arrow, and aliases in a circle.
        """
        stops = {normalise(tag, clean) for tag in clean.stop_tags}
        if clean.stop_list:
            stops |= {normalise(line, clean) for _, line in _lines(clean.stop_list, expected)}
        aliases = _read_aliases(clean, expected) if clean.aliases else {}
        return cls(aliases, frozenset(stops - {""}))

    def spell(self, tag: str) -> str:
        """Return the tag that stands for a clean one.

        >>> TagLists({"sci fi": "science fiction"}).spell("sci fi")
        'science fiction'
        """
        return self.aliases.get(tag, tag)

    def with_labels(self, names: Iterable[str], clean: CleanSettings) -> TagLists:
        """Return the lists with the names of labels, spelt as tags are."""
        spelt = {self.spell(normalise(name, clean)) for name in names}
        return replace(self, labels=frozenset(spelt - {""}))

    def to_json(self) -> dict[str, Any]:
        """Return the lists as JSON knows them, the same for equal lists."""
        aliases = dict(sorted(self.aliases.items()))
        return {"aliases": aliases, "stops": sorted(self.stops), "labels": sorted(self.labels)}

    @classmethod
    def from_json(cls, content: Any) -> TagLists:
        """Return the lists of `to_json`; raises CatalogError for anything else."""
        if not isinstance(content, dict) or sorted(content) != ["aliases", "labels", "stops"]:
            raise CatalogError("not lists of tags: aliases, labels and stops are needed")
        aliases, stops, labels = content["aliases"], content["stops"], content["labels"]
        if not isinstance(aliases, dict) or not isinstance(stops, list) or not isinstance(labels, list):
            raise CatalogError("not lists of tags: aliases are pairs, stops and labels lists")
        if not all(isinstance(tag, str) for tag in (*aliases.values(), *stops, *labels)):
            raise CatalogError("not lists of tags: a tag is text")
        return cls(aliases, frozenset(stops), frozenset(labels))


def _lines(path: str, expected: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Give the lines of a small text that are not blank, and their numbers."""
    with TextStream(path) as stream:
        stream.head(1 << 16)
        text = stream.read(MAX_BYTES).decode()
        if stream.read(1):
            raise CatalogError(f"{path}: is over {MAX_BYTES >> 20} MB; a list of tags is smaller")
        stream.verify(expected.get(path))
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(MARKED, line):
            raise CatalogError(f"{path} line {number}: is not UTF-8; save it as UTF-8")
        if line.strip():
            yield number, line.strip()


def _read_aliases(clean: CleanSettings, expected: Mapping[str, str]) -> dict[str, str]:
    """Return every alias with the tag at the end of its chain."""
    found: dict[str, str] = {}
    for number, line in _lines(clean.aliases, expected):
        place = f"{clean.aliases} line {number}"
        alias, arrow, tag = line.partition(ARROW)
        alias, tag = normalise(alias, clean), normalise(tag, clean)
        if not arrow or not alias or not tag or ARROW in line.partition(ARROW)[2]:
            raise CatalogError(f"{place}: {line[:80]!r} is not of the form `sci fi {ARROW} science fiction`")
        if len(tag) > clean.max_tag_length:
            raise CatalogError(f"{place}: the tag is over [clean] max_tag_length = {clean.max_tag_length} characters")
        if found.setdefault(alias, tag) != tag:
            raise CatalogError(f"{place}: '{alias}' stands for '{tag}' here and for '{found[alias]}' above")
    found = {alias: tag for alias, tag in found.items() if alias != tag}
    return {alias: _end_of(alias, found, clean.aliases) for alias in found}


def _end_of(alias: str, found: Mapping[str, str], path: str) -> str:
    """Return the tag at the end of a chain of aliases."""
    chain = [alias]
    while chain[-1] in found:
        chain.append(found[chain[-1]])
        if chain[-1] == alias or len(chain) > len(found) + 1:
            raise CatalogError(f"{path}: aliases go in a circle: {f' {ARROW} '.join(chain[:10])}; take one of them out")
    return chain[-1]
