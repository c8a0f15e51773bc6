"""What a prediction needs: five libraries, nothing of weight beside them, half a second from the start of a process."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_model import make_model

PROJECT = Path(__file__).parents[1]
FIVE = {"numpy", "scipy", "h5py", "pyarrow", "pydantic"}
OF_PYDANTIC = {"pydantic_core", "typing_extensions", "typing_inspection", "annotated_types"}
# What they take where it happens to be installed.
OF_PYARROW = {"cloudpickle", "dateutil", "six"}
OF_NUMPY = {"charset_normalizer"}
PREDICT = """
import sys
from pipeline import load_model
print(*load_model({path!r}).predict([["zombies", "farmhouse"]])[0].path)
print(*sorted(name for name, module in sys.modules.items() if module is not None))
print(*sorted({{n.split(".")[0] for n, m in sys.modules.items() if "-packages" in str(getattr(m, "__file__", ""))}}))
"""
SCORE = """
import pyarrow as pa
from pipeline import load_model
items = pa.table({{"tags": [["zombies"], []], "item_id": [1, 2]}})
print(load_model({path!r}).predict(items)["path"].to_pylist())
"""
CATALOG = """
import json, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from pipeline import Settings, load_model
from pipeline.progress import SILENT
from pipeline.score_catalog import Effort, score
folder = Path(sys.argv[1])
(folder / "build").mkdir(parents=True)
items = pa.record_batch({{"item_id": list(range(40)), "tags": [["zombies"], []] * 20}})
pq.write_table(pa.Table.from_batches([items]), folder / "items.parquet")
pq.write_table(pa.table({{"scope": pa.array([], pa.string())}}), folder / "rejects.parquet")
settings, effort = Settings(scoring={{"workers": 2, "batch_size": 8}}), Effort(shard_items=8, few_items=0)
score(settings, Path({path!r}), folder, folder / "build", run="r", progress=SILENT, effort=effort)
found = pq.read_table(folder / "build" / "scores.parquet")["path"].to_pylist()
whole = load_model({path!r}).score_batch(items, clean=True)["path"].to_pylist()
print(found == whole, len(found), len(list((folder / "shards").glob("worker-*.log"))))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    make_model().save(path)
    return path


def run(code, *arguments, python=sys.executable, folder=PROJECT, environment=None):
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_prediction_imports_five_libraries_and_nothing_of_weight(saved):
    path, modules, packages = run(PREDICT.format(path=str(saved)))
    assert path.split() == list(make_model().predict([["zombies", "farmhouse"]])[0].path)
    found = {name for name in packages.split() if not name.startswith(("_", "cython"))}
    assert found - OF_PYDANTIC - OF_PYARROW - OF_NUMPY - {"pipeline"} == FIVE
    heavy = {"pandas", "pyarrow.parquet", "pyarrow.fs", "scipy.optimize", "scipy.stats", "ssl", "sqlite3", "asyncio"}
    assert heavy & set(modules.split()) == set()
    of_ours = {name for name in modules.split() if name.startswith("pipeline.")}
    training = {"training", "fitting", "graph", "optimizer", "export", "evaluation", "staging", "tables", "writers"}
    assert {f"pipeline.{name}" for name in training} & of_ours == set()
    assert len(of_ours) < 60
    assert len(modules.split()) < 1100


BLOCKED = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {allowed} or name.startswith("_"):
            return None
        if not any(name.split(".")[0] == known for known in sys.stdlib_module_names):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def test_a_table_is_scored_where_nothing_else_is_installed(saved):
    allowed = FIVE | OF_PYDANTIC | {"pipeline", "cython_runtime"}
    (paths,) = run(BLOCKED.format(allowed=allowed) + SCORE.format(path=str(saved)))
    assert paths == str([list(found.path) for found in make_model().predict([["zombies"], []])])


def test_a_catalog_is_scored_by_processes_where_nothing_else_is_installed(saved, tmp_path):
    """Python runs sitecustomize when it starts, so it holds in the worker processes as well."""
    allowed = FIVE | OF_PYDANTIC | {"pipeline", "cython_runtime"}
    (tmp_path / "sitecustomize.py").write_text(BLOCKED.format(allowed=allowed))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    found = run(CATALOG.format(path=str(saved)), tmp_path / "catalog", environment=environment)
    assert found == ["True 40 2"]


@pytest.mark.slow
def test_the_five_libraries_alone_are_enough(saved, tmp_path):
    """Needs a package index: an environment is made of them, and of the package without what it depends on."""
    source = tmp_path / "source"
    for name in ("pipeline", "tasks"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source / name)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    old = sys.version_info < (3, 12)
    limits = {"numpy": "<1.24", "scipy": "<1.16", "pyarrow": "<26"} if old else {}
    subprocess.run([*pip, *(name + limits.get(name, "") for name in sorted(FIVE))], check=True)
    subprocess.run([*pip, "--no-deps", str(source)], check=True)
    (paths,) = run(SCORE.format(path=str(saved)), python=python, folder=tmp_path)
    assert paths == str([list(found.path) for found in make_model().predict([["zombies"], []])])
    assert run(CATALOG.format(path=str(saved)), tmp_path / "catalog", python=python, folder=tmp_path) == ["True 40 2"]
    listed = subprocess.run([str(python), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True)
    installed = {line.partition("==")[0].lower().replace("-", "_") for line in listed.stdout.splitlines()}
    assert installed - OF_PYDANTIC - {"pip", "setuptools"} == FIVE | {"tagladder"}
    command = [str(python), "-m", "pipeline", "predict", "zombies", "--explain", "--model", str(saved)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.bench
def test_from_the_start_of_a_process_to_its_first_prediction_half_a_second(saved):
    command = [sys.executable, "-m", "pipeline", "predict", "zombies", "farmhouse", "--model", str(saved)]
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        subprocess.run(command, cwd=PROJECT, env=os.environ, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5, seconds


def test_every_name_that_the_package_promises_is_there():
    import pipeline

    assert all(getattr(pipeline, name).__doc__ for name in pipeline.__all__)
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'fit_all'"):
        _ = pipeline.fit_all
