"""What the suites share: a tiny job in a process that can be killed, what it should leave, a reader beside it."""

import ctypes
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.forkserver import _forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import h5py
import pytest
from small_job import DATE, SETTINGS, STAGES, Project, write_items

from pipeline import artifacts, pointers

NEXT_DATE = "2026-11-24"
# So that there are checkpoints, two steps each.
LONGER = SETTINGS.replace("epochs = 1\n", "epochs = 12\npatience = 12\n").replace(
    "batch_size = 8\n", "batch_size = 16\n"
)
TONIGHT = ("ScoreCatalog", "--date", NEXT_DATE)
# Files that say how long something took, or that only save time: they differ between runs that made the same.
TIMED = {"manifest.json", "history.csv", "training.json"}
# These are not results: one saves time, one tells what has run; of the journal SQLite disposes by itself.
MEMORY = {"digests.json", "ledger.sqlite", "ledger.sqlite-journal"}
PRELOADED = (
    "duckdb",
    "h5py",
    "nights",
    "pandas",
    "pyarrow.acero",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "sqlite3",
    "pipeline.changes",
    "pipeline.cleaning",
    "pipeline.drift",
    "pipeline.export",
    "pipeline.features",
    "pipeline.gate",
    "pipeline.ledger",
    "pipeline.retention",
    "pipeline.score_catalog",
    "pipeline.status",
    "pipeline.summary",
    "pipeline.training",
    "s3fs",
    "warm_engine",
)
_context = multiprocessing.get_context("forkserver")
_starting = threading.Lock()


def rounds(short: int, long: int) -> pytest.MarkDecorator:
    """Run a suite a few times by default, and as often as it takes with -m reliability."""
    return pytest.mark.parametrize("n", [short, pytest.param(long, marks=pytest.mark.reliability)])


Limit = tuple[int, tuple[int, int]]  # a resource, and its soft and hard limit


@dataclass(frozen=True)
class Fault:
    """What happens at the nth of these calls that change something below the root (faults.c)."""

    calls: str  # names, between blanks, of those that are counted; all are written to calls.txt
    number: int = 0  # 0: at none
    action: int = 0  # an errno that the call fails with, or one of the two below


KILL_BEFORE, KILL_AFTER = -1, -2
ALL_CALLS = "open write truncate fsync rename mkdir symlink unlink rmdir"


def spread(n_all: int, n: int) -> list[int]:
    """Return n numbers from 1 to n_all, all of them where there are no more.

    >>> spread(3, 9), spread(10, 4)
    ([1, 2, 3], [1, 4, 7, 10])
    """
    n = min(n, n_all)
    return [1 + round(at * (n_all - 1) / max(1, n - 1)) for at in range(n)]


def can_fault() -> bool:
    """Return whether calls of the C library can be caught here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def compile_faults(folder: Path) -> Path:
    """Return faults.c as a library."""
    library, source = folder / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def start_server(folder: Path) -> None:
    """Start the server that jobs are forked from; it has imported the libraries, so that a job begins at once."""
    _context.set_forkserver_preload(list(PRELOADED))
    here = Path(__file__).parent
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent, here)))}
    # A killed job leaves semaphores, which multiprocessing removes at the end, and says so; the server says so of what
    # it has adopted.
    environment |= {"PYTHONWARNINGS": "ignore:resource_tracker,ignore:forkserver"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Theano notes for every node of a graph where it was written; so do no jobs.
    environment |= {"THEANO_FLAGS": "traceback.limit=0"}
    if can_fault():
        environment |= {"LD_PRELOAD": str(compile_faults(folder))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        start(_nothing).join()


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a function in a process of its own."""
    process = _context.Process(target=function, args=arguments)
    with _starting, pytest.MonkeyPatch.context() as patch:
        # Else the process would import pytest, as what its parent runs.
        patch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
        process.start()
        # Else a thread that starts another process asks how this one ended, and its own thread gets no answer.
        multiprocessing.process._children.discard(process)
    return process


def _nothing() -> None:
    pass


def cpu_seconds() -> float:
    """Return what this process and all jobs of its server have used, in user and system mode."""
    own, ticks = sum(os.times()[:4]), os.sysconf("SC_CLK_TCK")
    try:
        stat = Path(f"/proc/{_forkserver._forkserver_pid}/stat").read_text()
    except FileNotFoundError:  # not started, or no Linux
        return own
    return own + sum(map(int, stat.rpartition(")")[2].split()[11:15])) / ticks


def luigi_command(
    folder: Path,
    flags: tuple[str, ...],
    environment: dict[str, str],
    fault: Fault | None,
    limit: Limit | None,
    plant: Callable[[], None] | None,
) -> None:
    """Do what the luigi command does in a directory, as the leader of a process group; ends with its exit code."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # What runs in the background of a shell ignores it.
    os.chdir(folder)
    os.environ.update(environment)
    appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open("log.txt", appended, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    if limit is not None:
        resource.setrlimit(*limit)
    if plant is not None:
        plant()
    if fault is not None:
        root, told = bytes(folder / "artifacts"), os.open("calls.txt", appended, 0o600)
        ctypes.CDLL(None).arm(root, fault.calls.encode(), fault.number, fault.action, told)
    multiprocessing.set_start_method("fork", force=True)  # Luigi's workers are forked, as by the command.
    sys.argv = ["luigi", "--module", "tasks", *flags]
    from luigi import lock
    from luigi.cmdline import luigi_run
    from luigi.configuration import get_config

    get_config().reload()  # The server has read that of its own directory.

    def tell() -> None:
        Path(f"command-{os.getpid()}").write_text(" ".join(flags))

    # By /proc all jobs of the server are one command.
    tell()
    os.register_at_fork(after_in_child=tell)
    lock.getpcmd = lambda pid: Path(f"command-{pid}").read_text() if Path(f"/proc/{pid}").exists() else ""
    luigi_run(sys.argv[1:])


@dataclass
class Night(Project):
    """A project whose job runs in a process of the server."""

    @property
    def log(self) -> Path:
        """Return the file of all that the jobs of this project have said."""
        return self.folder / "log.txt"

    def calls(self) -> list[str]:
        """Return the calls that were told."""
        return (self.folder / "calls.txt").read_text().splitlines()

    def begin(
        self,
        *flags: str,
        fault: Fault | None = None,
        limit: Limit | None = None,
        plant: Callable[[], None] | None = None,
    ) -> BaseProcess:
        """Start the job, and return when it leads its own process group; `plant` is called in it before all else."""
        process = start(luigi_command, self.folder, flags or TONIGHT, self.environment, fault, limit, plant)
        with suppress(ProcessLookupError):
            while process.is_alive() and os.getpgid(process.pid) != process.pid:
                time.sleep(0.0005)
        return process

    def code(
        self,
        *flags: str,
        fault: Fault | None = None,
        limit: Limit | None = None,
        plant: Callable[[], None] | None = None,
    ) -> int:
        """Run the job and return its exit code."""
        process = self.begin(*flags, fault=fault, limit=limit, plant=plant)
        ended(process)
        assert process.exitcode is not None, "the job hangs"
        return process.exitcode

    def succeeds(self, *flags: str, fault: Fault | None = None) -> None:
        assert self.code(*flags, fault=fault) == 0, self.log.read_text()

    def copy(self, folder: Path) -> "Night":
        """Return a copy of the project, which has said nothing yet."""
        shutil.copytree(
            self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("log.txt", "calls.txt", "command-*")
        )
        return Night(folder, self.environment)

    def content(self) -> dict[str, str]:
        """Return the digest of every file outside work/ by its path, '' for what tells the time."""
        files = [path for path in sorted(self.root.rglob("*")) if path.is_file() or path.is_symlink()]
        named = {path.relative_to(self.root): path for path in files}
        return {str(name): digest(path) for name, path in named.items() if name.parts[0] not in {"work", *MEMORY}}

    def unfinished(self) -> list[str]:
        """Return what is in work/, but for locks and what names a process, which the next one removes."""
        work = self.root / "work"
        names = [path.relative_to(work).as_posix() for path in sorted(work.rglob("*"))]
        return [name for name in names if not name.startswith(("pid", "in-use-")) and not name.endswith(".lock")]

    def verify(self) -> None:
        """Raise ArtifactError unless every directory that has a name outside work/ is whole."""
        for stage in (*STAGES, "drift"):
            for folder in self.root.glob(f"{stage}/*"):
                artifacts.verify(folder)


@contextmanager
def told(night: Night, case: object) -> Iterator[None]:
    """Say of a failure in which case it was, at which call, and what the jobs of the project said."""
    try:
        yield
    except Exception as error:
        struck = (
            [line for line in night.calls() if line.startswith("!")] if (night.folder / "calls.txt").exists() else []
        )
        raise AssertionError(f"{case} {struck}: {error}\n{night.log.read_text()}") from error


def digest(path: Path) -> str:
    """Return the SHA-256 of what a file says, the target of a link, '' for what tells the time."""
    if path.is_symlink():
        return str(path.readlink())
    return "" if path.name in TIMED else hashlib.sha256(path.read_bytes()).hexdigest()


def kill(process: BaseProcess, number: int = signal.SIGKILL) -> bool:
    """Send a signal to the job's process group, and wait for its end; return whether the job still ran."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    ended(process)
    return process.exitcode == -number


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def ended(process: BaseProcess) -> None:
    """Return when the job has ended with all its processes."""
    process.join(120)
    until = time.monotonic() + 30
    while group_is_alive(process.pid):
        assert time.monotonic() < until
        time.sleep(0.001)


@dataclass(frozen=True)
class Tonight:
    """A project with yesterday's results and today's catalog, and what an undisturbed job makes of it."""

    yesterday: Night
    undisturbed: Night
    ends: dict[str, float]  # seconds from the start of the undisturbed job to the end of each stage, and of the job

    @cached_property
    def expected(self) -> dict[str, str]:
        return self.undisturbed.content()

    @cached_property
    def before(self) -> dict[str, str]:
        return self.yesterday.content()

    @cached_property
    def runs(self) -> set[str]:
        """Return the two runs that may be read: yesterday's and today's."""
        found = {pointers.latest(night.root).run for night in (self.yesterday, self.undisturbed)}
        assert len(found) == 2
        return found

    def published_by(self, stage: str) -> Path:
        """Return what is there as soon as the stage is published today, relative to the root."""
        before = self.before
        (manifest,) = [
            name
            for name in self.expected
            if name.startswith(f"{stage}/") and name not in before and name.endswith("manifest.json")
        ]
        return Path(manifest)

    def check(self, night: Night) -> None:
        """Assert that a project looks as after the undisturbed job."""
        assert sorted(night.content().items() ^ self.expected.items()) == []
        assert night.unfinished() == []
        assert not (night.root / "ledger.sqlite-journal").exists()
        night.verify()


def make_tonight(folder: Path, settings: str = LONGER) -> Tonight:
    """Run yesterday's job, change the catalog, and run today's."""
    yesterday = Night(folder / "yesterday")
    yesterday.folder.mkdir()
    write_items(yesterday.folder / "items.csv")
    (yesterday.folder / "luigi.cfg").write_text(settings)
    yesterday.succeeds("ScoreCatalog", "--date", DATE)
    write_items(yesterday.folder / "items.csv", first="living dead")
    undisturbed = yesterday.copy(folder / "undisturbed")
    started = time.monotonic()
    process = undisturbed.begin()
    ends = {}
    for stage in STAGES:
        while process.is_alive() and len(list(undisturbed.root.glob(f"{stage}/*/manifest.json"))) < 2:
            time.sleep(0.002)
        ends[stage] = time.monotonic() - started
    process.join(60)
    assert process.exitcode == 0, undisturbed.log.read_text()
    return Tonight(yesterday, undisturbed, {**ends, "end": time.monotonic() - started})


class Follower(threading.Thread):
    """A thread that reads results as long as a `with` lasts, and keeps what it found."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()
        self.runs: set[str] = set()
        self.n_reads = 0
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


class Reader(Follower):
    """Follows the pointers all the while, as a consumer of the results does."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def run(self) -> None:
        seen, read = None, 0.0
        while not self.ended.is_set():
            try:
                now = self.named()
                if now != seen or time.monotonic() - read > 0.05:
                    self.read()
                    self.n_reads += 1
                    seen, read = now, time.monotonic()
            except Exception as error:
                self.errors.append(error)
                return
            time.sleep(0.001)

    def named(self) -> tuple[int, str]:
        """Return what changes with the pointer and with the link: a moment after that is when to read."""
        published = self.root / "published"
        return (published / "latest.json").stat().st_ino, str((published / "latest").readlink())

    def read(self) -> None:
        """Read the latest run by its pointer, and what the link for people leads to."""
        pointer = pointers.latest(self.root)
        for folder in {(self.root / pointer.folder).resolve(), (self.root / "published" / "latest").resolve()}:
            artifacts.verify(folder)
            run = artifacts.manifest(folder)["fingerprint"]
            with h5py.File(folder / "scores.h5") as file:
                assert file.attrs["run"] == run == folder.name
            assert json.loads((folder / "summary.json").read_text())
            self.runs.add(run)


def reading(night: Night) -> Reader:
    """Return what reads the results of a project meanwhile."""
    return Reader(night.root)
