"""Raw tags become clean tags: the same rules in stage 1, in training and in scoring.

The rules run once per distinct tag, in Python; everything that is done per application is Arrow and NumPy.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import CleanSettings

NO_WORD = "[^\\pL\\pM\\pN'\u2019]+"  # what stands between words
_STAYS_BEHIND = "#"  # as in C#
# For tags in ASCII the rules are tables: which characters are control, and which punctuation or blank.
_CONTROL = dict.fromkeys((*range(32), 127), " ")
_PUNCTUATION = " " + "".join(c for c in map(chr, range(33, 127)) if unicodedata.category(c)[0] == "P")
_PUNCTUATION_BEHIND = _PUNCTUATION.replace(_STAYS_BEHIND, "")


def normalise(tag: str, clean: CleanSettings) -> str:
    """Return a tag as the settings want it; normalising again changes nothing.

    Escapes are undone, Unicode is brought to NFKC, control characters are blanks, invisible ones go.

    >>> normalise("  Sci-Fi_&amp;  MAGIC!", CleanSettings())
    'sci fi & magic'
    >>> normalise("C#", CleanSettings()), normalise("...", CleanSettings())
    ('c#', '')
    """
    if tag.isascii() and not ("&" in tag and clean.unescape_html) and not ("%" in tag and clean.unescape_url):
        return _normalise_ascii(tag, clean)
    for _ in range(len(tag) + 8):  # each round takes one layer of escapes; two are the rule
        before, tag = tag, _normalise_once(tag, clean)
        if tag == before:
            break
    return tag


def _normalise_ascii(tag: str, clean: CleanSettings) -> str:
    """Return what the rules make of a tag in ASCII without escapes: most tags are such, and this is 20 times faster."""
    if not tag.isprintable():
        tag = tag.translate(_CONTROL)
    if clean.lowercase:
        tag = tag.lower()
    if clean.strip_punctuation:
        tag = (
            tag.replace("-", " ").replace("_", " ").lstrip(_PUNCTUATION).rstrip(_PUNCTUATION.replace(_STAYS_BEHIND, ""))
        )
    return " ".join(tag.split())


def _normalise_once(tag: str, clean: CleanSettings) -> str:
    tag = unicodedata.normalize("NFKC", unescape(tag, clean))
    if clean.lowercase:
        tag = unicodedata.normalize("NFKC", tag.casefold())
    if not (tag.isascii() and tag.isprintable()):
        kinds = ((character, unicodedata.category(character)) for character in tag)
        tag = "".join(" " if kind == "Cc" else character for character, kind in kinds if kind != "Cf")
    if clean.strip_punctuation:
        tag = "".join(" " if c == "_" or unicodedata.category(c) == "Pd" else c for c in tag)
        start, end = 0, len(tag)
        while start < end and _is_punctuation(tag[start]):
            start += 1
        while end > start and _is_punctuation(tag[end - 1]) and tag[end - 1] not in _STAYS_BEHIND:
            end -= 1
        tag = tag[start:end]
    return " ".join(tag.split())


def unescape(text: str, clean: CleanSettings) -> str:
    """Return a text without the HTML and URL escapes that the settings name.

    >>> unescape("Art &gt; Pop%20Art", CleanSettings(unescape_url=True))
    'Art > Pop Art'
    """
    if clean.unescape_html and "&" in text:
        text = html.unescape(text)
    if clean.unescape_url and "%" in text:
        text = unquote(text)
    return text


def _is_punctuation(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] == "P"


@dataclass(frozen=True)
class TagRules:
    """The rules, and what they made of every distinct raw tag so far."""

    clean: CleanSettings
    known: dict[str, tuple[str, str]] = field(default_factory=dict)  # raw -> clean ('' where rejected), reason

    def __call__(self, raw: str) -> tuple[str, str]:
        """Return the clean tag and '', or '' and the reason why there is none."""
        if raw not in self.known:
            self.known[raw] = self._judge(raw)
        return self.known[raw]

    def _judge(self, raw: str) -> tuple[str, str]:
        too_long = f"tag over {self.clean.max_tag_length} characters"
        if len(raw) > 16 * self.clean.max_tag_length:  # whatever escapes and blanks it may have
            return "", too_long
        tag = normalise(raw, self.clean)
        if len(tag) > self.clean.max_tag_length:
            return "", too_long
        return tag, "" if tag else "nothing left of the tag after cleaning"


@dataclass(frozen=True)
class Applications:
    """Tag applications, one each: who carries what."""

    row: npt.NDArray[np.int64]  # (n,) index of the item
    raw: Any  # string array, (n,); blanks around are gone, and so are empty tags

    @classmethod
    def of_lists(cls, lists: Any) -> Applications:
        """Return the values of a list column; null and blank ones are none."""
        return cls.of(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), pc.list_flatten(lists))

    @classmethod
    def of(cls, row: Any, raw: Any) -> Applications:
        """Return the applications that are not null or blank."""
        raw = pc.utf8_trim_whitespace(pc.cast(raw, pa.string()))
        filled = pc.fill_null(pc.greater(pc.binary_length(raw), 0), False)
        return cls(row[filled.to_numpy(zero_copy_only=False)].astype(np.int64), raw.filter(filled))

    @classmethod
    def together(cls, parts: list[Applications]) -> Applications:
        """Return several sets of applications as one."""
        raw = [part.raw for part in parts] or [pa.array([], pa.string())]
        row = [part.row for part in parts] or [np.empty(0, np.int64)]
        return cls(np.concatenate(row), pa.concat_arrays(raw))


@dataclass(frozen=True)
class GroupedTags:
    """The clean tags of items."""

    tags: Any  # list<string>, (n_items,): clean, sorted by code point, distinct
    counts: Any  # list<int32>, (n_items,): how often each was applied
    order: Any  # list<int32>, (n_items,): place of each among the item's tags by first application, from 0
    n_raw: npt.NDArray[np.int32]  # (n_items,)
    rejected: npt.NDArray[np.int64]  # indices of applications that gave no tag
    reasons: list[str]  # (n rejected,)


def group_tags(applications: Applications, n_items: int, rules: TagRules) -> GroupedTags:
    """Return the clean tags of each item; neither the order of items' tags nor of applications matters."""
    encoded = applications.raw.dictionary_encode()
    judged = [rules(raw) for raw in encoded.dictionary.to_pylist()]
    names = sorted({tag for tag, _ in judged if tag})
    rank = {tag: place for place, tag in enumerate(names)}
    places = encoded.indices.to_numpy(zero_copy_only=False)
    codes = np.array([rank.get(tag, -1) for tag, _ in judged], np.int64)[places]
    taken = codes >= 0
    keys, first, counts = np.unique(
        applications.row[taken] * max(1, len(names)) + codes[taken], return_index=True, return_counts=True
    )
    row, code = keys // max(1, len(names)), keys % max(1, len(names))
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_items))])
    order = np.empty(len(row), np.int32)
    order[np.lexsort((first, row))] = np.arange(len(row)) - starts[row]
    offsets = pa.array(starts, pa.int32())
    rejected = np.flatnonzero(~taken)
    return GroupedTags(
        tags=pa.ListArray.from_arrays(offsets, pa.array(names, pa.string()).take(pa.array(code))),
        counts=pa.ListArray.from_arrays(offsets, pa.array(counts, pa.int32())),
        order=pa.ListArray.from_arrays(offsets, pa.array(order)),
        n_raw=np.bincount(applications.row, minlength=n_items).astype(np.int32),
        rejected=rejected,
        reasons=[judged[places[index]][1] for index in rejected],
    )


def split_cells(cells: Any, *, separators: str, clean: CleanSettings) -> Any:
    """Return delimited strings as lists, escapes undone first: an escaped separator separates too.

    >>> split_cells(pa.array(["a &gt; b;c"]), separators=";>", clean=CleanSettings())[0].as_py()
    ['a ', ' b', 'c']
    """
    cells = _mapped(cells, lambda text: unescape(text, clean), where="[&%]")
    if not separators:
        return pa.ListArray.from_arrays(pa.array(np.arange(len(cells) + 1), pa.int32()), cells)
    for separator in separators[1:]:
        cells = pc.replace_substring(cells, separator, separators[0])
    return pc.split_pattern(cells, separators[0])


def words_of(cells: Any, *, clean: CleanSettings) -> Any:
    """Return the words of texts: runs of letters, marks, digits and apostrophes.

    >>> words_of(pa.array(["Rock-n-roll &amp; Bob's ' 2nd!"]), clean=CleanSettings())[0].as_py()
    ['Rock', 'n', 'roll', "Bob's", '', '2nd', '']
    """
    lists = pc.split_pattern_regex(_mapped(cells, lambda text: unescape(text, clean), where="[&%]"), NO_WORD)
    is_word = pc.match_substring_regex(lists.values, r"[\pL\pN]")
    words = pc.if_else(is_word, lists.values, "")  # quotes and marks alone are none
    return pa.ListArray.from_arrays(lists.offsets, words, mask=pc.is_null(lists))


def _mapped(column: Any, function: Callable[[str], str], *, where: str) -> Any:
    """Return a string column with a function applied to each distinct value that a pattern is found in."""
    found = pc.fill_null(pc.match_substring_regex(column, where), False)
    if not pc.any(found).as_py():
        return column
    encoded = column.filter(found).dictionary_encode()
    values = pa.array([function(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(column, found, values.take(encoded.indices))
