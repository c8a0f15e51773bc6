"""After stage 5: what changed since the last published run, beside the scores and not in them."""

from __future__ import annotations

import sys

from pipeline import artifacts
from pipeline.digests import fingerprint
from pipeline.errors import ArtifactError
from pipeline.identity import STAGE_VERSIONS
from pipeline.plans import read_plan
from tasks.stage import Stage


def publish_changes(task: Stage, plan: str) -> str | None:
    """Publish changes.parquet of a run that is published, and return its directory, relative to the root.

    It depends on the last run too, which the plan has frozen: so it is no part of the scores, whose fingerprint has
    nothing of that. Return None before the first run, for the same run again, and where it cannot be made: the scores
    are there, and are not held back for it. Raises ArtifactError where the disk refuses, as in every stage.
    """
    from pipeline.changes import list_changes

    frozen = read_plan(task.root / plan) or {}
    last, since = frozen.get("last_published_run"), frozen.get("last_published_date")
    if last is None or last == task.fingerprint:
        return None
    parts = {"stage": "changes", "stage_version": STAGE_VERSIONS["changes"], "run": task.fingerprint, "since": last}
    place = f"changes/{fingerprint(parts)}"
    try:
        artifacts.publish(
            task.root / place,
            lambda folder: list_changes(task.folder, task.root / "score" / last, folder, since=since),
            work=task.root / "work" / fingerprint(parts),
            # Who removes old runs keeps this as long as the run that it tells of.
            facts={**parts, "fingerprint": fingerprint(parts), "upstreams": {"score": task.fingerprint}},
        )
    except ArtifactError as error:
        if isinstance(error.__cause__, OSError):
            raise
        print(f"changes: not listed: {error}", file=sys.stderr)
        return None
    return place
