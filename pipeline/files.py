"""Files are written beside their place, synced, and come there by one rename; what refuses is told with a remedy.

Nothing but this and artifacts.py renames, syncs or deletes. An fsync that fails is not tried again, as the kernel may
have dropped the pages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import ArtifactError, PipelineError
from pipeline.locks import held
from pipeline.refusals import refusal

PROBE_BYTES = 1 << 16  # room for what else is written there


def write_text(path: Path, text: str, *, work: Path) -> None:
    """Replace a file by one rename, synced; readers see the old text or the new one, never a part.

    The temporary file lies in `work`, on the same file system. Its name is the same every time, so that one that a
    killed process has left is written over; one process at a time writes there.
    """
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), work=work)


def write_file(path: Path, write: Callable[[Path], object], *, work: Path, before: Path | None = None) -> None:
    """Replace a file by what `write(temporary)` writes, as `write_text` does; the one until now becomes `before`."""
    temporary = work / f"{path.name}.new"
    with held(work / "write.lock"), told(path):
        make(path.parent)
        try:
            write(temporary)
            sync(temporary)
            if before is not None and path.exists():
                path.replace(before)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def replace_link(link: Path, target: Path, *, work: Path) -> None:
    """Make `link` a relative symbolic link to `target`, by one rename."""
    temporary = work / f"{link.name}.new"
    with held(work / "write.lock"), told(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)
        sync(link.parent)


def readable(path: Path) -> bool:
    """Return whether the path is a file that may be read.

    >>> readable(Path(__file__)), readable(Path(__file__).parent)
    (True, False)
    """
    return path.is_file() and os.access(path, os.R_OK)


def writable(folder: Path) -> bool:
    """Return whether a file can be written into a directory of work/, which is made where it is not there."""
    probe = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, or a directory and what is in it, if it is there."""
    with told(path, "removed"), suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def set_aside(path: Path, aside: Path) -> None:
    """Take a published directory or a file out of sight by one rename, on the same file system, for `remove`."""
    with told(path, "removed"):
        path.rename(aside)
        sync(path.parent)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; what goes away meanwhile counts nothing."""
    total = 0 if path.is_dir() else _size(path)
    # Path.rglob fails where a directory goes meanwhile.
    return total + sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.lstat().st_size
    return 0


def write_synced(path: Path, text: str) -> None:
    """Write a file that is in no place yet, and force it to the disk."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def make(folder: Path) -> None:
    """Make a directory and those above it, each of them synced into the one above."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Force a file's data, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told(path: Path, what: str = "published", *, only: Container[int] | None = None) -> Iterator[None]:
    """Turn an error of the file system into one that names the path and what to do; of these codes, where given."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        cause = refusal(error, only)
        if cause is None:
            raise
        raise ArtifactError(
            f"{path}: cannot be {what} ({cause}); free space or give write permission below [storage] root, "
            "then run the same command again"
        ) from error
