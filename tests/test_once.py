"""Luigi's lock against a second run of the same command: what its file has come to does not stop a night for ever."""

import pytest

from pipeline import pointers

FLAGS = ("ScoreCatalog", "--date", "2026-11-24")


@pytest.fixture
def lock(project):
    """The file of a command that has run."""
    before = set((project.root / "work" / "pid").glob("*.pid"))
    project.score(date="2026-11-24")
    (file,) = set((project.root / "work" / "pid").glob("*.pid")) - before
    return file


def test_numbers_that_a_crash_of_the_machine_left_unreadable_are_none(project, lock):
    lock.write_bytes(b"\0\0\0\0")
    code, out, err = project.run(*FLAGS)
    assert (code, err) == (0, "")
    assert "nothing to do" in out


def test_a_file_that_the_disk_refuses_ends_the_command_with_30_path_and_remedy(project, lock):
    latest = pointers.latest(project.root)
    lock.unlink()
    lock.mkdir()
    code, _, err = project.run(*FLAGS)
    assert code == 30
    assert err.startswith("lock: artifacts/work/pid: cannot be written (Is a directory: artifacts/work/pid/")
    assert err.endswith("below [storage] root, then run the same command again\n")
    assert "Traceback" not in err
    assert pointers.latest(project.root) == latest
