"""Raw tags become clean tags: the same rules in stage 1, in training and in scoring.

The rules run once per distinct tag, in Python; everything that is done per application is Arrow and NumPy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arrow
from pipeline.config_catalog import CleanSettings
from pipeline.spelling import changed_by_unescape, normalise, unescape
from pipeline.tag_lists import TagLists

NO_WORD = "[^\\pL\\pM\\pN'\u2019]+"  # what stands between words


class Judgement(NamedTuple):
    """What becomes of a raw tag."""

    tag: str  # '' where nothing does
    reason: str  # why it is rejected; '' where it is not, and where a list drops it
    changed_by: tuple[str, ...]  # rules and lists that changed or dropped it


@dataclass(frozen=True)
class TagRules:
    """The rules, and what they made of every distinct raw tag so far."""

    clean: CleanSettings
    lists: TagLists = field(default_factory=TagLists)
    known: dict[str, Judgement] = field(default_factory=dict)

    def __call__(self, raw: str) -> Judgement:
        """Return the clean tag, or why there is none."""
        if len(raw) > 16 * self.clean.max_tag_length:  # whatever escapes and blanks it may have
            return Judgement("", self._too_long, ())
        found = self.known.get(raw)
        if found is None:
            found = self.known[raw] = self._judge(raw)
        return found

    @property
    def _too_long(self) -> str:
        return f"tag over {self.clean.max_tag_length} characters"

    def _judge(self, raw: str) -> Judgement:
        by: set[str] = set()
        tag = normalise(raw, self.clean, by)
        if len(tag) > self.clean.max_tag_length:
            return Judgement("", self._too_long, ())
        if not tag:
            return Judgement("", "nothing left of the tag after cleaning", ())
        if tag in self.lists.aliases:
            by.add("aliases")
            tag = self.lists.aliases[tag]
        if tag in self.lists.stops:
            return Judgement("", "", ("stop_tags",))
        if tag in self.lists.labels:
            return Judgement("", "", ("label_tags",))
        return Judgement(raw if tag == raw else tag, "", _shared(tuple(sorted(by))))  # memory holds equal texts once


@cache
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return equal tuples as one object: there are few of them and many tags."""
    return names


@dataclass(frozen=True)
class Applications:
    """Tag applications, one each: who carries what, how much it counts and who said so."""

    row: npt.NDArray[np.int64]  # (n,) index of the item
    raw: Any  # string array, (n,); blanks around are gone, and so are empty tags
    count: npt.NDArray[np.float64]  # (n,)
    user: npt.NDArray[np.int64]  # (n,); -1 where an application is nobody's

    @classmethod
    def of_lists(cls, lists: Any) -> Applications:
        """Return the values of a list column; null and blank ones are none."""
        return cls.of(arrow.values(pc.list_parent_indices(lists)), pc.list_flatten(lists))

    @classmethod
    def of(cls, row: Any, raw: Any, *, count: Any = None, user: Any = None) -> Applications:
        """Return the applications that are not null or blank; counts are 1, and users unknown, where none are given."""
        raw = pc.utf8_trim_whitespace(pc.cast(raw, pa.string()))
        keep = arrow.values(pc.binary_length(raw), null=0) > 0
        counts = np.ones(len(raw)) if count is None else count
        users = np.full(len(raw), -1) if user is None else user
        return cls(
            row[keep].astype(np.int64), raw.filter(arrow.flags(keep)), counts[keep], users[keep].astype(np.int64)
        )

    @classmethod
    def together(cls, parts: list[Applications]) -> Applications:
        """Return several sets of applications as one."""
        raw = [part.raw for part in parts] or [pa.array([], pa.string())]
        row = [np.empty(0, np.int64), *(part.row for part in parts)]
        count = [np.empty(0), *(part.count for part in parts)]
        user = [np.empty(0, np.int64), *(part.user for part in parts)]
        return cls(np.concatenate(row), pa.concat_arrays(raw), np.concatenate(count), np.concatenate(user))


@dataclass(frozen=True)
class GroupedTags:
    """The clean tags of items."""

    tags: Any  # list<string>, (n_items,): clean, sorted by code point, distinct
    counts: Any  # list<int32>, (n_items,): how often each was applied, or what its weights add up to
    order: Any  # list<int32>, (n_items,): place of each among the item's tags by first application
    n_raw: npt.NDArray[np.int32]  # (n_items,)
    n_kept: int  # applications that gave a tag which the item keeps
    rejected: npt.NDArray[np.int64]  # indices of applications that gave no tag
    reasons: list[str]  # (n rejected,)
    changes: Counter[str]  # applications by what changed or dropped them


def group_tags(applications: Applications, n_items: int, rules: TagRules) -> GroupedTags:
    """Return the clean tags of each item; neither the order of items' tags nor of applications matters."""
    encoded = applications.raw.dictionary_encode()
    met = rules.known.get  # Mostly they are: a call less for each distinct tag of every window.
    judged = [met(raw) or rules(raw) for raw in encoded.dictionary.to_pylist()]
    found_tags = [tag for tag, _, _ in judged]
    names = sorted(set(found_tags) - {""})
    rank = dict(zip(names, range(len(names)), strict=True))
    places = arrow.values(encoded.indices)
    codes = np.array([rank.get(tag, -1) for tag in found_tags], np.int64)[places]
    changes = _count_changes(judged, places)
    taken, size = codes >= 0, max(1, len(names))
    keys, first, which, given = np.unique(
        applications.row[taken] * size + codes[taken], return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.bincount(which, weights=applications.count[taken], minlength=len(keys))
    counts = np.clip(np.rint(sums), 1, np.iinfo(np.int32).max).astype(np.int32)
    keep = counts >= rules.clean.min_tag_count
    changes["min_tag_count"] += int(given[~keep].sum())
    if rules.clean.min_tag_users > 1:
        known = _users(which, applications.user[taken], len(keys)) >= rules.clean.min_tag_users
        changes["min_tag_users"] += int(given[keep & ~known].sum())
        keep &= known
    changes["duplicates"] += int((given[keep] - 1).sum())
    row, code = keys[keep] // size, keys[keep] % size
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_items))])
    order = np.empty(len(row), np.int32)
    order[np.lexsort((first[keep], row))] = np.arange(len(row)) - starts[row]
    offsets = arrow.numbers(starts.astype(np.int32))
    wrong = np.array([reason != "" for _, reason, _ in judged], np.bool_)[places]
    rejected = np.flatnonzero(wrong)
    return GroupedTags(
        tags=pa.ListArray.from_arrays(offsets, arrow.strings(names).take(arrow.numbers(code))),
        counts=pa.ListArray.from_arrays(offsets, arrow.numbers(counts[keep])),
        order=pa.ListArray.from_arrays(offsets, arrow.numbers(order)),
        n_raw=np.bincount(applications.row, minlength=n_items).astype(np.int32),
        n_kept=int(given[keep].sum()),
        rejected=rejected,
        reasons=[judged[places[index]].reason for index in rejected],
        changes=changes,
    )


def _count_changes(judged: list[Judgement], places: npt.NDArray[np.int32]) -> Counter[str]:
    """Return the number of applications that each rule or list changed or dropped."""
    changes = Counter[str]()
    for found, count in zip(judged, np.bincount(places, minlength=len(judged)).tolist(), strict=True):
        for name in found.changed_by:
            changes[name] += count
    return changes


def _users(which: npt.NDArray[np.int64], user: npt.NDArray[np.int64], n_keys: int) -> npt.NDArray[np.int64]:
    """Return how many users gave each tag of an item, (n_keys,); one that nobody gave (a word) has enough."""
    size = int(user.max(initial=-1)) + 2
    pairs = np.unique(which * size + user + 1)
    users = np.bincount(pairs // size, minlength=n_keys)
    users[which[user < 0]] = np.iinfo(np.int64).max
    return users


def select_tags(lists: Any, keep: npt.NDArray[np.bool_]) -> Any:
    """Return lists with those of their values only that `keep`, one for each value, has; null becomes empty.

    >>> select_tags(pa.array([["a", "b"], None, ["c"]]), np.array([False, True, True])).to_pylist()
    [['b'], [], ['c']]
    """
    parents = arrow.values(pc.list_parent_indices(lists))[keep]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parents, minlength=len(lists)))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pc.list_flatten(lists).filter(pa.array(keep)))


def split_cells(cells: Any, *, separators: str, clean: CleanSettings, changes: Counter[str] | None = None) -> Any:
    """Return delimited strings as lists, escapes undone first: an escaped separator separates too.

    >>> split_cells(pa.array(["a &gt; b;c"]), separators=";>", clean=CleanSettings())[0].as_py()
    ['a ', ' b', 'c']
    """
    cells = _unescaped(cells, clean, changes)
    if not separators:
        return pa.ListArray.from_arrays(pa.array(np.arange(len(cells) + 1), pa.int32()), cells)
    for separator in separators[1:]:
        cells = pc.replace_substring(cells, separator, separators[0])
    return pc.split_pattern(cells, separators[0])


def words_of(cells: Any, *, clean: CleanSettings, changes: Counter[str] | None = None) -> Any:
    """Return the words of texts: runs of letters, marks, digits and apostrophes.

    >>> words_of(pa.array(["Rock-n-roll &amp; Bob's ' 2nd!"]), clean=CleanSettings())[0].as_py()
    ['Rock', 'n', 'roll', "Bob's", '', '2nd', '']
    """
    lists = pc.split_pattern_regex(_unescaped(cells, clean, changes), NO_WORD)
    is_word = pc.match_substring_regex(lists.values, r"[\pL\pN]")
    words = pc.if_else(is_word, lists.values, "")  # quotes and marks alone are none
    return pa.ListArray.from_arrays(lists.offsets, words, mask=pc.is_null(lists))


def _unescaped(column: Any, clean: CleanSettings, changes: Counter[str] | None) -> Any:
    """Return a string column with escapes undone, in Python once for each distinct value that may have one."""
    where = changed_by_unescape(clean)
    found = pc.fill_null(pc.match_substring_regex(column, where), False) if where else pa.array([False])
    if not pc.any(found).as_py():
        return column
    encoded = column.filter(found).dictionary_encode()
    values = pa.array([unescape(value, clean) for value in encoded.dictionary.to_pylist()], pa.string())
    mended = values.take(encoded.indices)
    if changes is not None:
        changes["unescaped_cells"] += pc.sum(pc.not_equal(mended, column.filter(found)), min_count=0).as_py()
    return pc.replace_with_mask(column, found, mended)
