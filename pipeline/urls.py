"""Paths and URLs: what lies in an object store is named by a URL, and all else is a path of this machine."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# A secret may hold a slash; where a host is named, digits and a slash behind the colon are a port.
_PASSWORD = re.compile(r"(\b(?:s3a?|gs|gcs)://[^/@:\s]*:|://[^/@:\s]*:(?!\d+/))[^@\s]*@(?:[^/@\s]*@)*")
_SIGNATURE = re.compile(r"([?&](?:X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature|Signature|sig)=)[^&\s]+", re.I)


def is_url(path: str) -> bool:
    """Return whether this names something in an object store.

    >>> is_url("s3://bucket/films.csv"), is_url("data/films.csv"), is_url("file:///data/films.csv")
    (True, False, False)
    """
    scheme = _SCHEME.match(path)
    return scheme is not None and scheme[1] != "file"


def without_file_scheme(path: str) -> str:
    """Return a path in place of a file:// URL, and everything else as it is; refuse a secret in a URL.

    >>> without_file_scheme("file:///data/films.csv"), without_file_scheme("s3://bucket/films.csv")
    ('/data/films.csv', 's3://bucket/films.csv')
    >>> without_file_scheme("s3://name:word@bucket/films.csv")
    Traceback (most recent call last):
    ValueError: a URL with a password in it; credentials come from the environment, a profile or a role
    >>> without_file_scheme("hdfs://namenode:8020/films@home.csv")
    'hdfs://namenode:8020/films@home.csv'
    """
    found = "password" if _PASSWORD.search(path) else "signature" if is_url(path) and _SIGNATURE.search(path) else None
    if found is not None:
        raise ValueError(f"a URL with a {found} in it; credentials come from the environment, a profile or a role")
    return path.removeprefix("file://") if path.startswith("file:///") else path


def without_password(text: str) -> str:
    """Return text that may be shown: of a URL with a password in it neither name nor password, and no signature.

    >>> without_password("root = s3://name:wo/rd@bucket/films.csv")
    'root = s3://...@bucket/films.csv'
    >>> without_password("s3://key:12/ab@bucket/films.csv"), without_password("hdfs://host:8020/films@home.csv")
    ('s3://...@bucket/films.csv', 'hdfs://host:8020/films@home.csv')
    >>> without_password("items = https://store/films.csv?sig=abc&v=1")
    'items = https://store/films.csv?sig=...&v=1'
    """
    return _SIGNATURE.sub(r"\1...", _PASSWORD.sub(_before_password, text))


def _before_password(found: re.Match[str]) -> str:
    return found[1].partition("://")[0] + "://...@"


def name_of(path: str) -> str:
    """Return the last part of a path or URL.

    >>> name_of("s3://bucket/in/films.csv"), name_of("in/films.csv")
    ('films.csv', 'films.csv')
    """
    return path.rpartition("/")[2] if is_url(path) else Path(path).name
