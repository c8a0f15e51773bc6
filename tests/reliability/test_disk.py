"""Suite 4: a disk that refuses, is full or may not be written: a clear end, and yesterday's results as they were."""

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from nights import Fault, Night, Tonight, rounds, spread, told

from pipeline import pointers

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
# DuckDB does not say why it could not sync.
TOLD = (*map(os.strerror, (*ERRORS, errno.EFBIG, errno.EROFS)), "fsync failed")


def check_end(tonight: Tonight, night: Night, code: int) -> None:
    """Assert that a job either failed with 30, path and remedy, or has done all; what may be read is whole."""
    said = night.log.read_text()
    assert "Traceback" not in said
    night.verify()
    pointer = pointers.latest(night.root)
    assert pointer.run in tonight.runs
    if code == 0:
        tonight.check(night)
        return
    assert code == 30, said
    assert any(words in said for words in TOLD), said
    assert "artifacts/" in said
    assert "below [storage] root" in said


def failed(tonight: Tonight, folder, call: str, number: int, code: int) -> int:
    """Let the nth call of a kind fail; return the exit code."""
    night = tonight.yesterday.copy(folder)
    ended = night.code(fault=Fault(call, number, code))
    with told(night, f"{os.strerror(code)}, exit {ended}"):
        check_end(tonight, night, ended)
        night.succeeds()
        tonight.check(night)
    shutil.rmtree(folder)
    return ended


@rounds(1, 60)
def test_a_call_that_the_disk_refuses_ends_the_job_clearly_or_does_no_harm(faults, tonight, tmp_path, figure, n):
    whole = tonight.yesterday.copy(tmp_path / "whole")
    assert whole.code(fault=Fault("write rename fsync")) == 0
    kinds = [kind for line in whole.calls() if (kind := line.split()[0]) in {"write", "rename", "fsync"}]
    cases = [
        (call, number, ERRORS[at % 3])
        for call in ("write", "rename", "fsync")
        for at, number in enumerate(spread(kinds.count(call), n))
    ]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(failed, tonight, tmp_path / str(at), *case) for at, case in enumerate(cases)]
        codes = [job.result() for job in jobs]
    figure(
        f"4 write errors: {len(cases)} of {len(kinds)} writes, renames and fsyncs failed: "
        f"{codes.count(30)} ended with 30, {codes.count(0)} did no harm; all good after the next run"
    )


def mount(place: Path, options: str) -> bool:
    """Mount a small file system in memory, or give one other options; return whether that is allowed here."""
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def on_a_small_disk(tonight: Tonight, folder: Path, *, free: int) -> Iterator[Night]:
    """Give yesterday's project with its results on a disk of their own that has some bytes left."""
    night = tonight.yesterday.copy(folder)
    shutil.rmtree(night.root)
    night.root.mkdir()
    if not mount(night.root, "size=64m"):
        pytest.skip("a small disk needs the right to mount one")
    try:
        shutil.copytree(tonight.yesterday.root, night.root, symlinks=True, dirs_exist_ok=True)
        space = os.statvfs(night.root)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        assert mount(night.root, f"remount,size={used + free}")
        yield night
    finally:
        subprocess.run(["umount", "-l", str(night.root)], check=True)


@rounds(1, 20)
def test_a_full_disk_ends_the_job_clearly_and_with_more_space_it_goes_on(tonight, tmp_path, figure, n):
    codes = []
    for at, pages in enumerate(np.geomspace(1, 1000, n).astype(int)):
        with on_a_small_disk(tonight, tmp_path / str(at), free=int(pages) * 4096) as night:
            codes.append(night.code())
            check_end(tonight, night, codes[-1])
            assert mount(night.root, "remount,size=64m")
            night.succeeds()
            tonight.check(night)
    figure(
        f"4 full disk: {n} levels: {codes.count(30)} ended with 30, {codes.count(0)} had room; all good with more space"
    )
    assert codes.count(30) + codes.count(0) == n


@rounds(1, 8)
def test_a_limit_on_the_size_of_files_ends_the_job_clearly(tonight, tmp_path, figure, n):
    codes = []
    for at, size in enumerate(np.geomspace(2000, 200_000, n).astype(int)):
        night = tonight.yesterday.copy(tmp_path / str(at))
        codes.append(night.code(limit=(resource.RLIMIT_FSIZE, (int(size), int(size)))))
        check_end(tonight, night, codes[-1])
        night.succeeds()
        tonight.check(night)
    figure(f"4 largest file: {n} limits: {codes.count(30)} ended with 30, {codes.count(0)} were enough")


def test_a_root_that_may_not_be_written_is_refused_before_any_work(tonight, tmp_path, figure):
    with on_a_small_disk(tonight, tmp_path / "night", free=1 << 20) as night:
        assert mount(night.root, "remount,ro")
        started = time.monotonic()
        assert night.code() == 30
        took = time.monotonic() - started
        check_end(tonight, night, 30)
        assert "CleanTags" not in night.log.read_text()
    figure(f"4 read-only root: refused after {took:.1f} s")
    assert took < 2
