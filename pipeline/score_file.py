"""Stage 5 without Luigi: a file of items, read as stage 1 reads it, is scored; results appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import artifacts, digests, files
from pipeline.cleaning import clean
from pipeline.config import Settings, make_settings
from pipeline.downloads import here
from pipeline.errors import CatalogError, PipelineError, SettingsError
from pipeline.formats import PATHS
from pipeline.identity import significant
from pipeline.inputs import input_paths
from pipeline.model import load_model, load_rules
from pipeline.progress import SILENT, Progress
from pipeline.raw_plan import plan
from pipeline.score_catalog import score
from pipeline.score_raw import score_raw

SECTIONS = ("catalog", "clean", "scoring")  # those of which a setting has an effect here


def score_file(
    file: str,
    *,
    model: Path,
    out: Path,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Score the items of a file (or a glob, a directory, a URL of one) into the new directory `out`.

    It holds what stage 5 publishes: scores.parquet/, scores.h5, rejects.parquet, a manifest, and summary.json, which
    is returned.
    Columns are called as in the catalog that the model was trained on; `settings` by section and name say what is
    different. Tags are cleaned by the rules in the model file. Raises SettingsError, ModelError, CatalogError, and
    ArtifactError where `out` exists; nothing is left behind then.
    """
    if find_spec("duckdb") is None:
        raise PipelineError("a file is read with DuckDB, which is not installed: pip install duckdb")
    if out.exists():
        raise SettingsError(f"{out}: exists; name a directory that does not")
    chosen, lists = load_rules(model, settings_for(file, model, settings or {}))
    expected = {named.path: _digest(Path(here(named.path))) for named in input_paths(chosen, role="scoring")}
    facts = {"inputs": expected, "model": _digest(model), "settings": significant(chosen, "score")}

    def write(folder: Path) -> None:
        run = digests.fingerprint({**facts, "inputs": sorted(expected.values())})
        rows = plan(chosen, folder.parent, expected)
        if rows is not None:
            score_raw(chosen, model, rows, folder, expected=expected, run=run, progress=progress)
            return
        cleaned = folder.with_name("clean")
        files.remove(cleaned)
        cleaned.mkdir()
        clean(chosen, cleaned, expected=expected, role="scoring", lists=lists)
        score(chosen, model, cleaned, folder, run=run, progress=progress)

    # On the same file system: results are moved from here by one rename.
    work = out.absolute().with_name(f".{out.name}.work")
    try:
        artifacts.publish(out, write, work=work, facts=facts)
    finally:
        files.remove(work)
    found: dict[str, Any] = json.loads((out / "summary.json").read_text("utf-8"))
    return found


def settings_for(file: str, model: Path, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return the settings by which a file is read: the columns of the model's training catalog, with changes."""
    for section, values in changes.items():
        if section not in SECTIONS:
            raise SettingsError(
                f"[{section}] {', '.join(values)}: has no effect on scoring; {', '.join(SECTIONS)} have"
            )
    scoring = {"items": file, **changes.get("scoring", {})}
    if scoring.get("engine", "local") != "local":
        raise SettingsError(
            f"[scoring] engine = {scoring['engine']}: a file is scored by this machine; Spark is for the nightly job"
        )
    trained = load_model(model)
    catalog = {"levels": trained.taxonomy.levels, **asdict(trained.transform.columns)}
    # Which files there are is said here, never by a model.
    catalog |= {name: value for name, value in trained.catalog.items() if name not in PATHS}
    catalog["tags"] = scoring.get("tags", "")
    if not catalog["tags"]:  # These are columns of the file of tags.
        catalog |= {"tags_count": "", "tags_user": ""}
    catalog |= changes.get("catalog", {})
    return make_settings({"catalog": catalog, "clean": dict(changes.get("clean", {})), "scoring": scoring})


def _digest(path: Path) -> str:
    if not files.readable(path):
        raise CatalogError(f"{path}: there is no such file, or it may not be read")
    return digests.sha256_of(path)
