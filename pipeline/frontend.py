"""From Python in one call: rows of raw tags and their label paths, or a DataFrame, become a model.

The stages are those of the nightly job, run one after the other in a temporary folder: there is no second way to
clean tags, to make features or to train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Settings, make_settings
from pipeline.config_learning import NetworkSettings
from pipeline.digests import sha256_of
from pipeline.downloads import here
from pipeline.errors import CatalogError, SettingsError
from pipeline.examples import Examples
from pipeline.inputs import LAST, input_paths
from pipeline.labels import check_labels
from pipeline.members import member_names, of_member
from pipeline.model import Model, load_model
from pipeline.progress import SILENT, Progress

if TYPE_CHECKING:
    from pipeline.objective import Loss
    from pipeline.optimizer import ChangeGradients

Rows = Sequence[Sequence[str]]
Paths = Sequence[Sequence[str] | None]


def train_model(
    rows: Any,
    paths: Paths | None = None,
    *,
    levels: Sequence[str] = (),
    settings: Settings | None = None,
    start: Model | None = None,
    loss: Loss | None = None,
    change_gradients: ChangeGradients | None = None,
    progress: Progress = SILENT,
) -> Model:
    """Return a model trained on these items, in memory; `save` writes its file.

    `rows` are the raw tags of each item, and `paths` the labels of each from the top; a shorter path is unknown
    further down, None is an item without labels. Or `rows` is a pandas DataFrame (or an Arrow table) with the columns
    that [catalog] names, where item_id and title may be left out. `levels` are the names of the levels; without them
    those of the settings. Shares of the items are held out for early stopping and figures, as [clean] says.

    With `start` training goes on from the weights of that model, whose tags and classes need not be the same; without
    `settings` by its own of levels, cleaning, features and network. `loss` and `change_gradients` are those of
    `pipeline.fitting.fit`.

    Raises the errors of the stages: CatalogError, FeatureError, SettingsError, TrainingError, ModelError.
    """
    if settings is None:
        settings = Settings() if start is None else settings_of(start)
    names = tuple(levels) or settings.catalog.levels
    with TemporaryDirectory(prefix="tagladder-") as name:
        folder = Path(name)
        catalog = _write_frame(rows, folder, settings) if paths is None else _write_rows(rows, paths, names, folder)
        sections = settings.model_dump()
        sections["catalog"] |= {"levels": names, **catalog}
        start = _named_start(settings) if start is None else start
        return _run_stages(make_settings(sections), folder, start, progress, loss, change_gradients)


def _named_start(settings: Settings) -> Model | None:
    """Return the model of the file that [training] warm_start names, None where it is empty."""
    path = settings.training.warm_start
    if path == LAST:
        raise SettingsError(f"[training] warm_start = {LAST}: here no model is published; give it as start=model")
    return load_model(here(path)) if path else None


def _run_stages(
    settings: Settings,
    folder: Path,
    start: Model | None,
    progress: Progress,
    loss: Loss | None,
    change_gradients: ChangeGradients | None,
) -> Model:
    """Return the model of stages 1 to 4, each of which leaves a folder beside the items."""
    from pipeline.cleaning import clean
    from pipeline.export import export
    from pipeline.features import build
    from pipeline.training import train

    members = [folder / name for name in member_names(settings)]
    cleaned, features, exported = (folder / stage for stage in ("clean", "features", "export"))
    for stage in (cleaned, features, *members, exported):
        stage.mkdir()
    expected = {file.path: sha256_of(here(file.path)) for file in input_paths(settings, role="training")}
    clean(settings, cleaned, expected=expected, role="training")
    _tell_rejects(cleaned, progress)
    build(settings, cleaned, features)
    for number, trained in enumerate(members, start=1):
        one = of_member(settings, number)
        train(
            one,
            features,
            trained,
            taxonomy=cleaned / "taxonomy.json",
            start=start,
            member=number,
            loss=loss,
            change_gradients=change_gradients,
            progress=progress,
        )
    export(settings, cleaned, features, members, exported, provenance={})
    return load_model(exported / "model.h5")


def settings_of(model: Model) -> Settings:
    """Return the settings by which a model's tags were cleaned, its features made and its network built."""
    catalog = {"levels": model.taxonomy.levels, **asdict(model.transform.columns)}
    network = {name: getattr(model.network.config, name) for name in NetworkSettings.model_fields}
    return make_settings(
        {
            "catalog": catalog,
            "clean": model.clean.model_dump(),
            "features": model.transform.settings.model_dump(),
            "network": network,
        }
    )


def examples_of(model: Model, rows: Rows, paths: Paths) -> Examples:
    """Return rows of raw tags and their paths as the network of a model reads them: `fit(model.network, examples)`.

    Raises CatalogError for a path that the model's taxonomy does not have.
    """
    taxonomy = model.taxonomy
    labels = [_columns(rows, paths, taxonomy.levels)[level] for level in taxonomy.levels]
    checked = check_labels(taxonomy.levels, labels, stop_label=taxonomy.stop_label, taxonomy=taxonomy)
    for place, reason in enumerate(checked.reasons.to_pylist()):
        if reason is not None:
            raise CatalogError(f"paths[{place}] = {list(paths[place] or ())}: {reason}")
    inputs = model.inputs(rows)
    return Examples.of(inputs.tag_index, taxonomy.encode(checked.columns), features=inputs.features, dense=inputs.dense)


def _write_rows(rows: Rows, paths: Paths, levels: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write rows and paths as a table of items, and return the settings of [catalog] that read it."""
    items = folder / "items.parquet"
    pq.write_table(pa.table(_columns(rows, paths, levels)), items)
    return {"items": str(items), "item_id": "", "title": "", "tags_column": "tags", "level_columns": ()}


def _columns(rows: Rows, paths: Paths, levels: Sequence[str]) -> dict[str, Any]:
    """Return a column of tags, and one of labels for each level."""
    if len(rows) != len(paths):
        raise CatalogError(f"{len(rows):,} rows of tags and {len(paths):,} paths: each row needs one, or None")
    for name, parts in (("rows", rows), ("paths", paths)):
        for place, part in enumerate(parts):
            if isinstance(part, str):
                raise CatalogError(f"{name}[{place}] is the string {part!r}; a list of strings is needed")
    ladders = [() if path is None else tuple(path) for path in paths]
    for place, path in enumerate(ladders):
        if len(path) > len(levels):
            raise CatalogError(
                f"paths[{place}] = {list(path)} has {len(path)} labels for {len(levels)} levels "
                f"({', '.join(levels)}); name the levels, as in levels=('genre', 'theme')"
            )
    columns = {"tags": pa.array([list(row) for row in rows], pa.list_(pa.string()))}
    for depth, level in enumerate(levels):
        columns[level] = pa.array([path[depth] if depth < len(path) else None for path in ladders], pa.string())
    return columns


def _write_frame(frame: Any, folder: Path, settings: Settings) -> dict[str, Any]:
    """Write a DataFrame or an Arrow table as a table of items, and return the settings of [catalog] that read it."""
    if not isinstance(frame, pa.Table):
        if not hasattr(frame, "columns"):
            raise CatalogError("paths are missing: train_model(rows, paths) takes both, train_model(frame) a DataFrame")
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    items = folder / "items.parquet"
    pq.write_table(frame, items)
    optional = {"item_id": settings.catalog.item_id, "title": settings.catalog.title}
    return {"items": str(items)} | {name: "" for name, column in optional.items() if column not in frame.column_names}


def _tell_rejects(cleaned: Path, progress: Progress) -> None:
    """Say how many rows, tags and labels were not taken, and why."""
    rejects = pq.read_table(cleaned / "rejects.parquet", columns=["scope", "reason"])
    counted = rejects.group_by(["scope", "reason"]).aggregate([([], "count_all")])
    for found in counted.to_pylist():
        progress.note(f"{found['count_all']:,} rejected, {found['scope']}: {found['reason']}")
