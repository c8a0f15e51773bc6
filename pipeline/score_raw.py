"""Stage 5 of raw items: cleaned and scored by the same processes; what is rejected is gathered, judged and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config import Settings
from pipeline.progress import Progress
from pipeline.raw_items import Plan
from pipeline.raw_plan import verify_again
from pipeline.score_catalog import Effort, shards_beside, write_scores
from pipeline.scored import Job, Scored
from pipeline.tables import open_database


def score_raw(
    settings: Settings,
    model_file: Path,
    plan: Plan,
    folder: Path,
    *,
    expected: Mapping[str, str],
    run: str,
    progress: Progress,
    effort: Effort = Effort(),  # noqa: B008 - it is frozen
) -> None:
    """Score the items that a plan names, and write the results of stage 5, as `score_catalog.score` does.

    Raises CatalogError where a file is not the expected one any more, or where there are too many rejects.
    """
    digests = [expected[source.path] for source in plan.sources]
    job = Job.of_raw(model_file, plan, digests, settings, shards_beside(folder))
    n_tags = 0
    with open_database(folder.parent, expected) as database:

        def take(part: Scored) -> None:
            nonlocal n_tags
            n_tags += part.n_tags
            if part.rejects is not None and part.rejects.num_rows:
                database.rejects.take(part.rejects)

        summary = write_scores(job, folder, run=run, progress=progress, effort=effort, rejected=take)
        verify_again(plan, expected)
        n_rows = {"item": sum(plan.n_rows), "tag": n_tags}
        database.rejects.check_share(n_rows, max_share=settings.clean.max_reject_share)
        database.rejects.write(folder / "rejects.parquet")
    summary.write(folder)
