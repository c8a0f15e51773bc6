"""What may pass by itself is tried again, what cannot is not; each failure here is one of the system's own."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_job import PROJECT, Project

from pipeline import artifacts, invalidation, ledger, pointers
from pipeline.config_results import StorageSettings
from pipeline.errors import ArtifactError, CatalogError
from pipeline.refusals import of_system
from tasks.retries import may_pass, patiently

FULL = Path("/dev/full")  # A write to it fails as on a full disk.
AT_ONCE = StorageSettings(tries=3, retry_delay=0)


def publish(folder: Path, write) -> None:
    artifacts.publish(folder, write, work=folder.with_name("work"), facts={})


def test_a_disk_that_is_full_once_is_no_failure(tmp_path):
    places, told = [FULL, None, None], []

    def write(folder: Path) -> None:
        (places.pop(0) or folder / "file").write_text("content")

    patiently(lambda: publish(tmp_path / "out", write), AT_ONCE, note=told.append)
    assert (artifacts.verify(tmp_path / "out") / "file").read_text() == "content"
    assert len(places) == 1
    assert len(told) == 1
    assert told[0].startswith("try 1 of 3, the next in 0 s: ") and "No space left on device" in told[0]


def test_a_disk_that_stays_full_is_told_after_the_last_try(tmp_path):
    told: list[str] = []
    with pytest.raises(ArtifactError, match="No space left on device"):
        patiently(lambda: publish(tmp_path / "out", lambda _: FULL.write_text("x")), AT_ONCE, note=told.append)
    assert [text[:10] for text in told] == ["try 1 of 3", "try 2 of 3"]
    assert not (tmp_path / "out").exists()


def test_what_cannot_pass_is_tried_once(tmp_path):
    tries: list[int] = []

    def read() -> str:
        tries.append(1)
        try:
            return (tmp_path / "absent.csv").read_text()
        except OSError as error:
            raise CatalogError("absent.csv: cannot be read") from error

    with pytest.raises(CatalogError):
        patiently(read, AT_ONCE, note=lambda _: None)
    assert len(tries) == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ETIMEDOUT])
def test_the_cause_counts_whatever_it_became(code):
    try:
        try:
            raise OSError(code, "of the system")
        except OSError:
            raise ArtifactError("cannot be read") from None
    except ArtifactError as error:
        assert may_pass(error)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_what_somebody_must_mend_does_not_pass(code):
    assert not may_pass(OSError(code, "of the system"))


def test_libraries_with_errors_of_their_own_are_understood():
    assert may_pass(RuntimeError("write failed (errno = 28, error message = 'No space left on device')"))
    assert not may_pass(CatalogError("column 'No space left on device' is missing"))


def test_what_an_error_comes_from_is_found_by_number_and_by_words():
    full = OSError(errno.ENOSPC, "No space left on device", "/scratch")
    assert of_system(_raised(ArtifactError("cannot be written"), full)) is full
    assert of_system(_raised(ArtifactError("cannot be read"), RuntimeError("[Errno 5] told"))).errno == errno.EIO
    assert of_system(_raised(CatalogError("column 'No space left on device' is missing"), KeyError("column"))) is None


def _raised(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


# --- the luigi command


def fill(project, name: str) -> None:
    """Let the next file of that name meet a full disk while it is written, once: what is left of it is removed then."""
    (project.root / "work").mkdir(exist_ok=True)
    (project.root / "work" / f"{name}.new").symlink_to(FULL)


@pytest.mark.parametrize(
    ("name", "task"), [("latest.json", "ScoreCatalog"), pytest.param("plan", "PlanRun", marks=pytest.mark.slow)]
)
def test_a_night_goes_on_after_a_moment_of_a_full_disk(project, name, task):
    flags = ("ScoreCatalog", "--date", "2026-11-24", "--scoring-n-best", "1", "--storage-retry-delay", "0")
    if name == "plan":
        name = planned_name(project, *flags)
    fill(project, name)
    code, _, err = project.run(*flags, "--storage-tries", "1")
    assert code == 30
    assert f"{task}: artifacts/" in err and "No space left on device" in err
    before = project.results()
    fill(project, name)
    code, _, err = project.run(*flags, "--storage-tries", "2")
    assert code == 0
    assert f"{task:<13} try 1 of 2, the next in 0 s: artifacts/" in err
    assert pointers.latest(project.root).date == "2026-11-24"
    assert set(project.stages_since(before)) <= {"score"}


# The processes of a job meet, so many times in all, a table of open files that is full, a share that is away ...
FAILING = """
import errno, io, os
plain = io.open
def failing(path, mode="r", *rest, **options):
    if "r" in mode and str(path).endswith(os.environ["FAILS"]):
        with plain(os.environ["FAILED"], "a+") as failed:
            if failed.tell() < int(os.environ["TIMES"]):
                failed.write(".")
                code = getattr(errno, os.environ["CODE"])
                raise OSError(code, os.strerror(code), str(path))
    return plain(path, mode, *rest, **options)
io.open = failing
"""


def fail(project, folder: Path, name: str, code: str, *, times: int = 1) -> Path:
    """Let reading a file fail, and return a file that has a character for each time."""
    (folder / "sitecustomize.py").write_text(FAILING)
    failed, path = folder / "failed", f"{folder}:{PROJECT}"
    failed.touch()
    known = {"FAILS": name, "FAILED": str(failed), "CODE": code, "TIMES": str(times)}
    project.environment |= {"PYTHONPATH": path, **known}
    return failed


@pytest.mark.parametrize(
    ("name", "code"), [("parameters.h5", "EMFILE"), ("items.csv", "ESTALE"), ("invalidated.json", "EMFILE")]
)
def test_what_cannot_be_read_once_is_read_again_and_nothing_is_made_anew_for_it(project, tmp_path, name, code):
    if name == "invalidated.json":
        invalidation.invalidate(project.root, {"train": "0" * 64})
    failed = fail(project, tmp_path, name, code)
    if name == "items.csv":
        os.utime(project.folder / name)  # so that it is read again
    before = project.results()
    project.score("--export-storage", "float16", "--storage-tries", "2", "--storage-retry-delay", "0")
    assert failed.read_text() == "."
    assert set(project.stages_since(before)) == {"export", "score"}


def test_what_the_disk_itself_cannot_read_is_made_again(project, tmp_path):
    (clean,) = project.root.glob("clean/*/manifest.json")
    fail(project, tmp_path, str(clean.relative_to(project.root)), "EIO", times=2)
    before = project.results()
    project.score("--storage-tries", "2", "--storage-retry-delay", "0", date="2026-11-24")
    assert project.stages_since(before) == ["clean"]


def test_a_last_model_that_the_disk_cannot_read_is_trained_without(project, tmp_path):
    (model,) = project.root.glob("export/*/manifest.json")
    failed = fail(project, tmp_path, str(model.relative_to(project.root)), "EIO", times=2)
    flags = ("--training-warm-start", "last", "--storage-tries", "2", "--storage-retry-delay", "0")
    assert "made from these files and settings" in project.score(*flags, date="2026-11-24")
    assert failed.read_text() == ".."


@pytest.mark.parametrize(("code", "times", "exits"), [("EIO", 1, 0), ("EIO", 99, 1), ("EMFILE", 99, 1)])
def test_verify_takes_for_damaged_only_what_stays_so(project, tmp_path, code, times, exits):
    fail(project, tmp_path, "model.h5", code, times=times)
    (model,), clean = project.root.glob("export/*/model.h5"), next(project.root.glob("clean/*/items.parquet"))
    if code == "EMFILE":
        clean.write_bytes(b"damaged")
    command = [sys.executable, "-m", "tasks", "verify", "--storage-tries", "2", "--storage-retry-delay", "0"]
    environment = project.known_environment()
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == exits, done
    assert "model.h5: cannot be read" in done.stdout + done.stderr
    assert artifacts.exists(model.parent) == ((code, times) != ("EIO", 99))  # else it is made again
    assert artifacts.exists(clean.parent) == (code == "EIO")  # whatever else cannot be read


def planned_name(project, *flags: str) -> str:
    """Return the name of the plan of a night, by doing it in a copy of the project."""
    copy = Project(project.folder.with_name("copy"))
    shutil.copytree(project.folder, copy.folder, symlinks=True)
    copy.score(*flags[3:], date="2026-11-24")
    return Path(json.loads((copy.root / "published" / "2026-11-24.json").read_text())["plan"]).name


def test_a_wrong_catalog_fails_at_once_whatever_the_tries(project):
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    code, _, err = project.run("ScoreCatalog", "--storage-tries", "9", "--storage-retry-delay", "3600")
    assert code == 30
    assert "try 1" not in err
    assert ledger.entries(project.root)[-1].result == "failed"
