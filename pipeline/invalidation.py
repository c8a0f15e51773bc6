"""Results that are to be made again: their fingerprints are remembered, and such a stage gets another one.

    <root>/invalidated.json    fingerprint -> stage and time

Nothing is removed or moved for it. Directories are immutable and pointers name them, so who reads the published run
goes on reading it until the next run is whole and the pointer moves; retention removes the old one in its time. The
same settings and files lead to the same new fingerprint on every machine that reads the same root.
"""

from __future__ import annotations

import datetime
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import exists, manifest
from pipeline.digests import sealed, unsealed
from pipeline.errors import ArtifactError
from pipeline.files import write_text
from pipeline.leases import guard
from pipeline.locks import held
from pipeline.remote import remote_of


def invalidated(root: Path) -> dict[str, dict[str, str]]:
    """Return what was invalidated, by fingerprint; raises ArtifactError where the file is damaged."""
    path = _file(root)
    try:
        return unsealed(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); remove it: results count again as they stand") from None


def invalidate(root: Path, stages: Mapping[str, str]) -> None:
    """Remember that the results of these stages, fingerprint by name, are to be made again."""
    remote = remote_of(root)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if remote is not None:
        from pipeline import mirror

        return mirror.invalidate(remote, {value: {"stage": name, "at": now} for name, value in stages.items()})
    with held(guard(root)):
        known = invalidated(root) | {value: {"stage": name, "at": now} for name, value in stages.items()}
        write_text(_file(root), sealed(known), work=root / "work")
    return None


def rests_on(root: Path, model: str, fingerprints: Container[str]) -> bool:
    """Return whether a published model is one of these, or was made from one."""
    folder = root / "export" / model
    upstreams: Mapping[str, Any] = manifest(folder)["upstreams"] if exists(folder) else {}
    return any(value in fingerprints for value in (model, *upstreams.values()))


def _file(root: Path) -> Path:
    return root / "invalidated.json"
