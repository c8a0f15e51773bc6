"""Which results running processes need, told to other machines: an object each, that counts for a while.

<url>/in-use/<host>-<pid>-<digits>.json    JSON list of fingerprints; removed at the end, or left by a killed process
"""

from __future__ import annotations

import atexit
import datetime
import json
import os
import platform
import secrets
from collections.abc import Iterable
from contextlib import suppress

from pipeline.errors import ArtifactError
from pipeline.object_store import Entry
from pipeline.remote import Remote

PREFIX = "in-use"
_own: dict[tuple[int, str], tuple[str, set[str]]] = {}  # by process and URL: the key, and what it says


def hold(remote: Remote, fingerprints: Iterable[str]) -> None:
    """Say that this process needs these results; what is looked for afterwards is kept, or gone already."""
    known = _own.get((os.getpid(), remote.objects.url))
    if known is None:
        known = f"{PREFIX}/{platform.node()}-{os.getpid()}-{secrets.token_hex(6)}.json", set()
        _own[os.getpid(), remote.objects.url] = known
        atexit.register(_end, os.getpid(), remote)
    key, needs = known
    if not needs.issuperset(new := set(fingerprints)):
        remote.objects.write(key, json.dumps(sorted(needs | new)).encode())
        needs |= new  # Now that the store has it: a write that failed is done again.


def needed(remote: Remote) -> set[str]:
    """Return the fingerprints that running processes need, on any machine."""
    found: set[str] = set()
    for key, entry in remote.objects.list(PREFIX).items():
        lease = None if is_over(remote, entry) else remote.objects.read(key)
        if lease is not None:
            try:
                found |= set(json.loads(lease.content))
            except (ValueError, TypeError) as error:
                what = f"does not say what a process needs ({error})"
                raise ArtifactError(f"{remote.objects.url_of(key)}: {what}; remove it") from None
    return found


def over(remote: Remote) -> list[Entry]:
    """Return what processes have left that did not end by themselves."""
    return [entry for entry in remote.objects.list(PREFIX).values() if is_over(remote, entry)]


def is_over(remote: Remote, entry: Entry) -> bool:
    """Return whether an object is so old that who wrote it is taken for gone."""
    age = datetime.datetime.now(datetime.UTC) - entry.modified
    return age.total_seconds() > remote.hours * 3600


def _end(process: int, remote: Remote) -> None:
    """Remove the object at the end of its process; a forked child leaves that to its parent."""
    if os.getpid() == process and (process, remote.objects.url) in _own:
        key, _ = _own.pop((process, remote.objects.url))
        with suppress(Exception):  # The interpreter is on its way out; what stays counts for a while and is swept.
            remote.objects.remove([key])
