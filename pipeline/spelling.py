"""How a tag is spelt: the rules for one text, switched by settings, and which of them changed it."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from types import ModuleType
from urllib.parse import unquote

from pipeline.config_catalog import CleanSettings
from pipeline.errors import SettingsError

_STAYS_BEHIND = "#"  # as in C#
# For tags in ASCII the rules are tables: which characters are control, and which punctuation or blank.
_CONTROL = dict.fromkeys((*range(32), 127), " ")
_PUNCTUATION = " " + "".join(c for c in map(chr, range(33, 127)) if unicodedata.category(c)[0] == "P")
_PUNCTUATION_BEHIND = _PUNCTUATION.replace(_STAYS_BEHIND, "")


def normalise(tag: str, clean: CleanSettings, changed_by: set[str] | None = None) -> str:
    """Return a tag as the settings want it; normalising again changes nothing.

    Escapes are undone, Unicode is brought to NFKC, control characters are blanks, invisible ones go. The names of the
    rules that changed something are added to `changed_by`.

    >>> normalise("  Sci-Fi_&amp;  MAGIC!", CleanSettings())
    'sci fi & magic'
    >>> normalise("C#", CleanSettings()), normalise("...", CleanSettings())
    ('c#', '')
    """
    escaped = ("&" in tag and clean.unescape_html) or ("%" in tag and clean.unescape_url)
    if tag.isascii() and not escaped and not clean.fix_mojibake:
        return _normalise_ascii(tag, clean, set() if changed_by is None else changed_by)
    return _normalise_any(tag, clean, set() if changed_by is None else changed_by)


def _normalise_any(tag: str, clean: CleanSettings, changed_by: set[str]) -> str:
    rules = _rules(clean)
    for _ in range(len(tag) + 8):  # each round takes one layer of escapes; two are the rule
        start = tag
        for name, rule in rules:
            before, tag = tag, rule(tag)
            if tag != before:
                changed_by.add(name)
        if tag == start:
            break
    return tag


def _normalise_ascii(tag: str, clean: CleanSettings, changed_by: set[str]) -> str:
    """Return what the rules make of a tag in ASCII without escapes: most tags are such, and this is 20 times faster."""
    if not tag.isprintable():
        tag = tag.translate(_CONTROL)
        changed_by.add("control_characters")
    if clean.lowercase and tag != (folded := tag.lower()):
        tag = folded
        changed_by.add("case")
    if clean.strip_punctuation:
        bare = tag.replace("-", " ").replace("_", " ").lstrip(_PUNCTUATION).rstrip(_PUNCTUATION_BEHIND)
        if bare != tag:
            tag = bare
            changed_by.add("punctuation")
    if tag != (joined := " ".join(tag.split())):
        tag = joined
        changed_by.add("whitespace")
    return tag


def unescape(text: str, clean: CleanSettings) -> str:
    """Return a text repaired, and without the HTML and URL escapes, as far as the settings say so.

    >>> unescape("Art &gt; Pop%20Art", CleanSettings(unescape_url=True))
    'Art > Pop Art'
    """
    for _, rule in _escapes(clean):
        text = rule(text)
    return text


def changed_by_unescape(clean: CleanSettings) -> str:
    """Return a pattern that is found in every text that `unescape` may change; '' where there is none."""
    escapes = ("&" if clean.unescape_html else "") + ("%" if clean.unescape_url else "")
    beyond = "\\x{80}-\\x{10ffff}" if clean.fix_mojibake else ""
    return f"[{escapes}{beyond}]" if escapes or beyond else ""


def _rules(clean: CleanSettings) -> list[tuple[str, Callable[[str], str]]]:
    rules = _escapes(clean)
    if clean.unicode_nfkc:
        rules.append(("unicode", _nfkc))
    if clean.lowercase:
        fold: Callable[[str], str] = (lambda tag: _nfkc(tag.casefold())) if clean.unicode_nfkc else str.casefold
        rules.append(("case", fold))
    rules.append(("control_characters", _printable))
    if clean.strip_punctuation:
        rules.append(("punctuation", _without_punctuation))
    rules.append(("whitespace", lambda tag: " ".join(tag.split())))
    return rules


def _escapes(clean: CleanSettings) -> list[tuple[str, Callable[[str], str]]]:
    rules: list[tuple[str, Callable[[str], str]]] = []
    if clean.fix_mojibake:
        rules.append(("mojibake", _ftfy().fix_encoding))
    if clean.unescape_html:
        rules.append(("html", lambda text: html.unescape(text) if "&" in text else text))
    if clean.unescape_url:
        rules.append(("url", lambda text: unquote(text) if "%" in text else text))
    return rules


def _ftfy() -> ModuleType:
    """Return ftfy, which nothing else needs. Raises SettingsError where it is not installed."""
    try:
        import ftfy
    except ImportError:
        remedy = "pip install ftfy, where the model scores too"
        raise SettingsError(f"[clean] fix_mojibake = true: the package ftfy is not installed; {remedy}") from None
    return ftfy


def _nfkc(tag: str) -> str:
    return unicodedata.normalize("NFKC", tag)


def _printable(tag: str) -> str:
    """Return the tag with blanks for control characters and without invisible ones."""
    if tag.isascii() and tag.isprintable():
        return tag
    kinds = ((character, unicodedata.category(character)) for character in tag)
    return "".join(" " if kind == "Cc" else character for character, kind in kinds if kind != "Cf")


def _without_punctuation(tag: str) -> str:
    tag = "".join(" " if c == "_" or unicodedata.category(c) == "Pd" else c for c in tag)
    start, end = 0, len(tag)
    while start < end and _is_punctuation(tag[start]):
        start += 1
    while end > start and _is_punctuation(tag[end - 1]) and tag[end - 1] not in _STAYS_BEHIND:
        end -= 1
    return tag[start:end]


def _is_punctuation(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] == "P"
