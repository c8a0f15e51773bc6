"""Suites 2 and 3: a job killed at each call that changes something, and the order of these calls."""

import errno
import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pytest
from nights import ALL_CALLS, KILL_AFTER, KILL_BEFORE, NEXT_DATE, TONIGHT, Fault, Tonight, reading, rounds, spread, told

from pipeline import ledger

# What a failure of these means is theirs to know: they are no results.
OTHERS = (ledger.FILE, "digests.json")
RESCORED = ("ScoreCatalog", "--date", NEXT_DATE, "--scoring-n-best", "1")


@pytest.fixture(scope="module")
def rescored(tonight, tmp_path_factory) -> Tonight:
    """A job that publishes one directory and moves the pointers."""
    night = tonight.undisturbed.copy(tmp_path_factory.mktemp("rescored") / "night")
    night.succeeds(*RESCORED)
    return Tonight(tonight.undisturbed, night, {})


def killed_at(rescored: Tonight, folder, number: int, action: int) -> int:
    """Kill a job before or after its nth call, run it again, and check all; return how often it was read."""
    night = rescored.yesterday.copy(folder)
    with told(night, {KILL_BEFORE: "killed before", KILL_AFTER: "killed after"}[action]):
        with reading(night) as reader:
            night.code(*RESCORED, fault=Fault(ALL_CALLS, number, action))
            assert night.calls()[-1].startswith("! ")
            night.verify()
            assert set(night.content()) <= set(rescored.expected)
            night.succeeds(*RESCORED)
        assert reader.errors == []
        assert reader.runs <= rescored.runs
        rescored.check(night)
    shutil.rmtree(folder)
    return reader.n_reads


@rounds(1, 10_000)
def test_a_job_killed_before_or_after_any_call_is_made_good_by_the_next_run(faults, rescored, tmp_path, figure, n):
    whole = rescored.yesterday.copy(tmp_path / "whole")
    whole.succeeds(*RESCORED, fault=Fault(ALL_CALLS))
    # SQLite sees to its own file.
    calls = [at for at, line in enumerate(whole.calls(), 1) if not line.split(" ", 1)[1].startswith(OTHERS)]
    numbers = [calls[place - 1] for place in spread(len(calls), n)]
    cases = list(itertools.product(numbers, (KILL_BEFORE, KILL_AFTER)))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(killed_at, rescored, tmp_path / str(at), *case) for at, case in enumerate(cases)]
        n_reads = sum(job.result() for job in jobs)
    figure(
        f"2 kills before and after {len(numbers)} of the {len(calls)} calls of a publication: "
        f"{len(cases)} equal; {n_reads:,} reads, none partial or mixed"
    )


def publications(calls: list[str]) -> list[tuple[str, int]]:
    """Return the target of every rename outside the ledger, and its place among the calls."""
    renames = [(line.split(" ", 1)[1], at) for at, line in enumerate(calls) if line.startswith("rename ")]
    return [(target, at) for target, at in renames if "/damaged" not in target and "/before-" not in target]


def temporary(target: str) -> str:
    """Return where what is renamed was written.

    >>> temporary("clean/f1"), temporary("plan/a.json"), temporary("work/f1/checkpoint.h5")
    ('work/f1/build', 'work/a.json.new', 'work/f1/checkpoint.h5.new')
    """
    path = PurePosixPath(target)
    if path.suffix or path.name == "latest":
        return f"{path.parent if path.parts[0] == 'work' else 'work'}/{path.name}.new"
    return f"work/{path.name}/build"


def check_order(calls: list[str], target: str, at: int) -> None:
    """Assert that all files were synced after they were last written, the manifest last, and the parent after all."""
    source = temporary(target)
    files: dict[str, dict[str, int]] = {}
    for place, line in enumerate(calls[:at]):
        call, path = line.split(" ", 1)
        if call in ("unlink", "rmdir"):
            files.pop(path, None)
        elif path == source or path.startswith(f"{source}/"):
            files.setdefault(path, {})[call] = place
    assert files
    for path, seen in files.items():
        if "symlink" not in seen:
            assert seen["fsync"] > max(place for call, place in seen.items() if call != "fsync"), path
    if source.endswith("/build"):
        sealed = files[f"{source}/manifest.json"]
        others = [path for path in files if path not in (source, f"{source}/manifest.json")]
        assert all(files[path]["fsync"] < sealed["open"] for path in others)
        assert sealed["fsync"] < files[source]["fsync"] < at
    assert calls[at + 1] == f"fsync {PurePosixPath(target).parent}"


def test_files_are_synced_then_the_manifest_then_renamed_then_the_parent_is_synced(faults, tonight, tmp_path, figure):
    night = tonight.yesterday.copy(tmp_path / "night")
    night.succeeds(*TONIGHT, "--report-enabled", "true", fault=Fault(ALL_CALLS))
    calls = night.calls()
    found = publications(calls)
    for target, at in found:
        check_order(calls, target, at)
    directories = [target for target, _ in found if temporary(target).endswith("/build")]
    # Of five stages, of the checks before and after training, of the changes, and of the report.
    assert len(directories) == 9
    figure(f"3 order of {len(calls):,} calls: right in {len(directories)} directories and {len(found) - 9} files")


def sync_failed(tonight: Tonight, folder, number: int) -> int:
    """Let the nth fsync fail, and check that the job neither tries it again nor publishes; return its exit code."""
    night = tonight.yesterday.copy(folder)
    with told(night, f"fsync {number}"):
        code = night.code(fault=Fault("fsync", number, errno.EIO))
        calls = night.calls()
        (at,) = [place for place, line in enumerate(calls) if line.startswith("! ")]
        path = calls[at].removeprefix("! fsync ")
        # What DuckDB spills is gone with its process.
        if not path.removeprefix("work/").startswith(OTHERS) and "/.scratch-" not in path:
            assert code == 30
            assert f"fsync {path}" not in calls[at:]
            parents = [target for target, place in publications(calls) if place > at and temporary(target) in path]
            assert parents == []
        night.succeeds()
        tonight.check(night)
    shutil.rmtree(folder)
    return code


@rounds(1, 60)
def test_a_sync_that_fails_ends_the_publication_and_is_not_tried_again(faults, tonight, tmp_path, figure, n):
    whole = tonight.yesterday.copy(tmp_path / "whole")
    whole.succeeds(fault=Fault(ALL_CALLS))
    n_syncs = sum(line.startswith("fsync ") for line in whole.calls())
    numbers = spread(n_syncs, n)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(sync_failed, tonight, tmp_path / str(at), number) for at, number in enumerate(numbers)]
        codes = [job.result() for job in jobs]
    figure(
        f"3 failed fsync: {len(numbers)} of {n_syncs}: {codes.count(30)} ended with 30, {codes.count(0)} were not of a "
        "result; none tried again"
    )
