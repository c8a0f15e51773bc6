"""Locks between processes: free when their holder ends, and no error where their directory goes meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import ArtifactError
from pipeline.locks import held, take

HOLD = """
import sys, time
from pathlib import Path
from pipeline.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_free_when_its_holder_was_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    waited = []

    def kill() -> None:
        waited.append(time.monotonic())
        holder.kill()

    with held(tmp_path / "lock", waiting=kill):
        assert time.monotonic() - waited[0] < 1
    holder.communicate()


def test_a_root_that_cannot_be_written_is_told_with_its_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ArtifactError, match=r"file/work: cannot be made .*; give write permission"),
        held(tmp_path / "file" / "work" / "lock"),
    ):
        pass


def test_a_directory_that_goes_while_it_is_made_is_tried_again(tmp_path, monkeypatch):
    folder, made, real = tmp_path / "f1", [], Path.mkdir

    def mkdir(path, **options):
        made.append(path)
        if len(made) == 1:  # It was there, and its holder has removed it since.
            raise FileExistsError(17, "File exists", str(path))
        real(path, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert take(folder / "lock") is None
    with held(folder / "lock"):
        assert (folder / "lock").exists()
    assert made == [folder, folder]


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "work").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"work: cannot be made \(File exists\)"):
        take(tmp_path / "work" / "lock")
