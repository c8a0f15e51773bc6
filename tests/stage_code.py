"""Notice code of a stage that changed without a new version number: `python tests/stage_code.py` writes the record.

The digest of a stage is over the syntax of its modules, so comments, docstrings and layout do not count. A
stage's modules are those that its entry module imports within `pipeline`, directly or not, and no earlier
stage does: a change of an earlier one reaches the later ones through the fingerprints.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))

from pipeline.identity import STAGE_VERSIONS  # noqa: E402 (after the path is set)

PIPELINE = PROJECT / "pipeline"
STORED = Path(__file__).with_name("stage_code.json")
ENTRIES = {
    "clean": "pipeline.cleaning",
    "drift": "pipeline.drift",
    "features": "pipeline.features",
    "train": "pipeline.training",
    "export": "pipeline.export",
    "score": "pipeline.score_catalog",
    "gate": "pipeline.gate",
    "changes": "pipeline.changes",
    "report": "pipeline.report",
}
# Settings have their values in the fingerprints; the others carry results about and do not make them.
WITHOUT_EFFECT = {
    "pipeline",
    "pipeline.__main__",
    "pipeline.artifacts",
    "pipeline.doctor",
    "pipeline.downloads",
    "pipeline.installed",
    "pipeline.invalidation",
    "pipeline.forgetting",
    "pipeline.leases",
    "pipeline.leftovers",
    "pipeline.reasons",
    "pipeline.retention",
    "pipeline.runs",
    "pipeline.status",
    "pipeline.stores",
    "pipeline.urls",
    "pipeline.verification",
    "pipeline.config",
    "pipeline.config_catalog",
    "pipeline.config_features",
    "pipeline.config_learning",
    "pipeline.config_nights",
    "pipeline.config_results",
    "pipeline.config_types",
    "pipeline.conditional",
    "pipeline.cores",
    "pipeline.crew",
    "pipeline.digests",
    "pipeline.errors",
    "pipeline.explain",
    "pipeline.exposition",
    "pipeline.files",
    "pipeline.frontend",
    "pipeline.identity",
    "pipeline.ledger",
    "pipeline.locks",
    "pipeline.manifests",
    "pipeline.members",
    "pipeline.mirror",
    "pipeline.object_store",
    "pipeline.orphans",
    "pipeline.pointers",
    "pipeline.progress",
    "pipeline.refresh",
    "pipeline.refusals",
    "pipeline.remote",
    "pipeline.remote_folders",
    "pipeline.remote_leases",
    "pipeline.remote_pointers",
    "pipeline.remote_retention",
    "pipeline.sample",
    "pipeline.raw_plan",
    "pipeline.score_file",
    "pipeline.score_raw",
    "pipeline.spark",
    "pipeline.spark.app",
    "pipeline.spark.cleaning",
    "pipeline.spark.cluster",
    "pipeline.spark.executor",
    "pipeline.spark.features",
    "pipeline.spark.messages",
    "pipeline.spark.scoring",
    "pipeline.spark.waves",
    "pipeline.summary",
    "pipeline.worker",
    "pipeline.usage",
}


def name_of(path: Path) -> str:
    """Return the module's name of a file of the project."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def path_of(module: str) -> Path | None:
    """Return the file of a module of the project, None where the name is no module."""
    base = PROJECT.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def imported(module: str) -> set[str]:
    """Return the modules of `pipeline` that a module imports, within functions too."""
    path = path_of(module)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))) if path else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "pipeline" and path_of(name)}


def modules_of_stages() -> dict[str, list[str]]:
    """Return the modules of each stage that no earlier stage has."""
    taken = set(WITHOUT_EFFECT)
    found = {}
    for stage, entry in ENTRIES.items():
        waiting, own = [entry], set()
        while waiting:
            module = waiting.pop()
            if module not in taken and path_of(module):
                taken.add(module)
                own.add(module)
                waiting += imported(module)
        found[stage] = sorted(own)
    return found


def syntax(node: object) -> object:
    """Return a node as lists and names, the same for every Python: without positions, docstrings, empty fields."""
    if isinstance(node, list):
        return [syntax(part) for part in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    shown = {name: syntax(value) for name, value in fields.items() if value not in (None, []) and name != "kind"}
    return [type(node).__name__, shown]


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the syntax of files."""
    text = json.dumps([syntax(ast.parse(path.read_text("utf-8"))) for path in paths], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def current() -> dict[str, dict[str, object]]:
    """Return version, modules and digest of every stage."""
    return {
        stage: {
            "version": STAGE_VERSIONS[stage],
            "modules": modules,
            "digest": digest(path for module in modules if (path := path_of(module))),
        }
        for stage, modules in modules_of_stages().items()
    }


def main(arguments: list[str]) -> int:
    """Write the record anew; refuse where a stage's code changed and its number did not."""
    told = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}
    now = current()
    same = [
        stage
        for stage, record in now.items()
        if stage in told and told[stage]["digest"] != record["digest"] and told[stage]["version"] == record["version"]
    ]
    if same and "--same-results" not in arguments:
        print(f"code changed, version did not: {', '.join(same)}; raise STAGE_VERSIONS or say --same-results")
        return 1
    STORED.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
