"""Stage 1: which items train, which validate, which test: by a hash of the id, the same for ever and everywhere.

The first 13 hexadecimal digits of SHA-256("<salt>:<id>") are a fraction of 16^13. Below the share of the test part
the item tests; below the sum with the validation part it validates; else it trains. Hexadecimal text of one length
sorts as its numbers do, so DuckDB compares text.
"""

from __future__ import annotations

import hashlib

from pipeline.config_catalog import CleanSettings

DIGITS = 13
NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
SQL = f"""
    CASE WHEN substr(sha256($salt || ':' || id), 1, {DIGITS}) < $test THEN 'test'
         WHEN substr(sha256($salt || ':' || id), 1, {DIGITS}) < $held_out THEN 'validation' ELSE 'train' END
"""


def thresholds(clean: CleanSettings) -> dict[str, str]:
    """Return the parameters of SQL.

    >>> thresholds(CleanSettings(test_share=0.25, validation_share=0.25))["held_out"]
    '8000000000000'
    """
    test, held_out = clean.test_share, clean.test_share + clean.validation_share
    return {"salt": clean.split_salt, "test": _hex(test), "held_out": _hex(held_out)}


def split_of(item_id: int | str, clean: CleanSettings) -> str:
    """Return the part of an item.

    >>> [split_of(n, CleanSettings()) for n in range(1, 8)]
    ['train', 'train', 'train', 'train', 'train', 'train', 'test']
    """
    limits = thresholds(clean)
    digits = hashlib.sha256(f"{limits['salt']}:{item_id}".encode()).hexdigest()[:DIGITS]
    return "test" if digits < limits["test"] else "validation" if digits < limits["held_out"] else "train"


def _hex(share: float) -> str:
    return format(round(share * 16**DIGITS), f"0{DIGITS}x")
