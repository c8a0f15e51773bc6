"""What several test modules share: the luigi command as a user has it, and one full run of the main job."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import settings
from remote_root import URL
from report_job import run_two_nights
from s3_server import S3, serving
from small_job import SETTINGS, Project, write_items
from small_nights import Nights
from xdist.scheduler import LoadFileScheduling

from pipeline import stores
from pipeline.config_results import StorageSettings
from pipeline.remote import open_root

# Machines are shared: how long an example takes says nothing.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
PROJECT = Path(__file__).parents[1]

# Doctests import every module, and those of benchmarks need what the extra `bench` installs.
PEERS = {"sklearn": ("linear.py", "quality.py", "transfer.py"), "torch": ("torch_network.py",)}
collect_ignore = [f"benchmarks/{file}" for peer, files in PEERS.items() if not find_spec(peer) for file in files]


# Files whose tests share a fixture that takes long.
TOGETHER = {"tests/test_readme.py": "tests/test_main_job.py", "tests/test_report_browser.py": "tests/test_report.py"}


class Shares(LoadFileScheduling):
    """A file goes to one process, some with another one; the long tests of tests/reliability go one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return nodeid if self.config.getoption("markexpr") == "reliability" else TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    return Shares(config, log) if config.getoption("dist") == "loadfile" else None


def luigi(*flags: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the luigi command in the project's directory."""
    command = [str(Path(sys.executable).with_name("luigi")), "--module", "tasks", *flags]
    return subprocess.run(
        command, cwd=PROJECT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="session")
def run_luigi() -> Callable[..., subprocess.CompletedProcess[str]]:
    return luigi


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The root of the main job's results, with all settings at their defaults, and what it said at the end."""
    root = tmp_path_factory.mktemp("main_job") / "artifacts"
    done = luigi("ScoreCatalog", "--storage-root", str(root))
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("TAGLADDER_DATA")
    if not folder:
        pytest.skip("TAGLADDER_DATA is not set: the real data sets are not at hand")
    return Path(folder)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A tiny project whose first run is done, and what it said; nobody may change it."""
    project = Project(tmp_path_factory.mktemp("first"))
    write_items(project.folder / "items.csv")
    (project.folder / "luigi.cfg").write_text(SETTINGS)
    return project, project.score()


@pytest.fixture(scope="session")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two nights of a catalog with hostile names, each with a report; nobody may change it."""
    return run_two_nights(tmp_path_factory.mktemp("report") / "nights")


@pytest.fixture
def project(first_run: tuple[Project, str], tmp_path: Path) -> Project:
    """A copy of a project whose first run is done."""
    shutil.copytree(first_run[0].folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A bucket of a real S3 server."""
    with serving(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture
def memory() -> Iterator[Any]:
    """A store in memory; what is below a URL is the same for all machines of a test."""
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()
    stores.close()


@pytest.fixture
def machine(tmp_path: Path, memory: Any) -> Callable[..., Path]:
    """Return the working copy of a machine of that name."""

    def root_of(name: str = "one", **settings: Any) -> Path:
        return open_root(StorageSettings(root=URL, local=str(tmp_path / name), **settings))

    return root_of


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """A root of published runs of small directories."""
    return Nights(tmp_path / "artifacts")
