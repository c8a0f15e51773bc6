"""New HDF5 files, of which libhdf5 never learns that the disk refuses a write.

Where it does, libhdf5 2.0 prints what it cannot raise, as it writes much of an array only when that is freed, and then
crashes as it closes the file. So its writes go through an object of Python, which keeps the first refusal to itself.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


@contextmanager
def created(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Give a new HDF5 file, made with these options; raises the OSError of the first write that was refused."""
    disk = Disk(path)
    try:
        with h5py.File(disk, "w", **options) as file:
            yield file
    finally:
        disk.close()
        disk.check()


class Disk(io.RawIOBase):
    """A new file as h5py writes it; after a refusal nothing more reaches the disk, and all is read as if it had."""

    _descriptor = -1  # where the file could not be made; Python closes such an object too

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._refusal: OSError | None = None
        self._refused: list[tuple[int, bytes]] = []  # place, content
        self._place = self._size = 0

    def check(self) -> None:
        """Raise the OSError of the first write that was refused, where one was."""
        if self._refusal is not None:
            raise self._refusal

    def close(self) -> None:
        """Close the file; raises nothing, see `check`."""
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
        super().close()

    def readable(self) -> bool:
        """Return True: h5py reads again what it has written."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, counted from the start or from the end; return it from the start."""
        self._place = offset + (self._size if whence == os.SEEK_END else 0)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; what was never written is zero."""
        view = memoryview(buffer).cast("B")
        n_read = os.preadv(self._descriptor, [view], self._place)
        view[n_read:] = bytes(len(view) - n_read)
        for place, content in self._refused:
            start, end = max(place, self._place), min(place + len(content), self._place + len(view))
            if start < end:
                view[start - self._place : end - self._place] = content[start - place : end - place]
        return len(view)

    def write(self, content: Any, /) -> int:
        """Write all of it, or keep it where the disk refuses; return how much that is."""
        view = memoryview(content).cast("B")
        if not self._accepts(lambda: self._write(view)):
            self._refused.append((self._place, bytes(view)))
        self._place += len(view)
        self._size = max(self._size, self._place)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file so long."""
        self._size = self._place if size is None else size
        self._accepts(lambda: os.ftruncate(self._descriptor, self._size))
        return self._size

    def _write(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], self._place + done)

    def _accepts(self, change: Any) -> bool:
        """Do this to the file unless it has refused something before; return whether it was done."""
        if self._refusal is None:
            try:
                change()
            except OSError as error:
                self._refusal = OSError(error.errno, error.strerror, str(self.path))
        return self._refusal is None
