"""New HDF5 files on a disk that refuses: a clear error, and a process that goes on."""

import errno
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from pipeline.hdf5_files import Disk, created

FILL = """
import resource, sys
from pathlib import Path
import h5py, numpy as np
from pipeline.hdf5_files import created

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with created(Path(sys.argv[1])) as file:
        for number in range(20):
            numbers = file.create_dataset(
                f"numbers {number}", shape=(0,), maxshape=(None,), chunks=(1000,), dtype="i4", compression="gzip"
            )
            numbers.resize(20_000, axis=0)
            numbers[:] = np.random.default_rng(number).integers(0, 9999, 20_000)
            texts = np.array([f"text {number}"] * 100, dtype=object)
            file.create_dataset(f"texts {number}", data=texts, dtype=h5py.string_dtype())
except OSError as error:
    print(error)
"""

WRITE = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeline.writers import HDF5Writer

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
items = pa.record_batch({"item_id": range(1000), "title": [f"film {n}" for n in range(1000)]})
try:
    with HDF5Writer(Path(sys.argv[1]), items.schema, widths={}, metadata={"run": "r1"}) as scores:
        for _ in range(40):
            scores.write(items)
except OSError as error:
    print(error)
"""


def fill(file):
    file.attrs["name"] = "films"
    file.create_dataset("numbers", data=np.arange(5000).reshape(100, 50), chunks=(10, 50), compression="gzip")
    file.create_dataset("texts", data=np.array(["a", "", "ghosts"] * 50, dtype=object), dtype=h5py.string_dtype())


def test_a_file_holds_what_was_written_and_the_same_bytes_each_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        with created(tmp_path / name, userblock_size=512) as file:
            fill(file)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["name"] == "films" and file.userblock_size == 512
        assert (file["numbers"][()] == np.arange(5000).reshape(100, 50)).all()
        assert file["texts"].asstr()[2] == "ghosts"


@pytest.mark.parametrize("write", [FILL, WRITE], ids=["created", "scores"])
@pytest.mark.parametrize("limit", [0, 100, 3000, 50_000, 300_000])
def test_where_the_disk_refuses_the_process_goes_on_with_one_error(tmp_path, limit, write):
    command = [sys.executable, "-c", write, str(tmp_path / "new.h5"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr  # libhdf5 by itself ends with SIGSEGV
    assert done.stdout == f"[Errno {errno.EFBIG}] File too large: '{tmp_path / 'new.h5'}'\n"
    assert done.stderr == ""


def test_what_was_refused_is_read_as_if_it_had_been_written(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    disk = Disk(tmp_path / "file")
    try:
        disk.write(b"0123456789")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        disk.write(b"abcdef")
        disk.seek(8)
        assert disk.write(b"XYZ") == 3
        disk.truncate(20)
        assert disk.seek(0, 2) == 20
        disk.seek(6)
        assert disk.read(12) == b"67XYZbcdef\0\0"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        disk.close()
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    with pytest.raises(OSError, match="File too large"):
        disk.check()


def test_an_error_of_the_caller_is_raised_as_it_is(tmp_path):
    with pytest.raises(KeyError, match="other"), created(tmp_path / "a.h5"):
        raise KeyError("other")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/a\.h5"), created(tmp_path / "none" / "a.h5"):
        pass
