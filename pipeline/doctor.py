"""What is wrong with the machine, the installation, the settings or the input files, and what helps."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import pointers
from pipeline.downloads import here
from pipeline.errors import ArtifactError, SettingsError
from pipeline.files import size_of
from pipeline.identity import Identity
from pipeline.reasons import fingerprints_of
from pipeline.remote import Remote, remote_of
from pipeline.status import size
from pipeline.urls import is_url
from pipeline.verification import damaged_pointers, published

PYTHONS = ((3, 11), (3, 12), (3, 13))
# Stages 1 and 2 take 1.3 GB with 10,000,000 items (README), training and scoring less.
LEAST_MEMORY, GOOD_MEMORY = 1_000_000_000, 2_000_000_000
LEAST_DISK = 500_000_000
SECONDS = 300  # an import that takes longer hangs
A_DAY = datetime.timedelta(days=1)  # Elsewhere it may be tomorrow already.


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "wrong"]
    fact: str
    remedy: str = ""


def examine(identity: Identity | None, *, engine: str, root: Path, mistake: str | None) -> list[Check]:
    """Return what was found; `identity` is None where the settings have the `mistake`."""
    found = [check_python(sys.version_info[:2]), *check_installed(engine)]
    found += [check_memory(available_memory()), check_disk(root), check_root(root)]
    if identity is None:
        return [*found, Check("settings", "wrong", mistake or "", "mend the settings that it names")]
    found.append(Check("settings", "ok", "all names and values are known"))
    remote = remote_of(root)
    found += [] if remote is None else [check_store(remote)]
    return [*found, *check_inputs(identity), *check_published(root), *check_latest(root, datetime.date.today())]


def lines(checks: Sequence[Check]) -> list[str]:
    """Return a line a check, with the remedy below what is wrong.

    >>> lines([Check("disk", "wrong", "2 MB free", "free some")])
    ['wrong  disk       2 MB free', '                  -> free some']
    """
    found = []
    for check in checks:
        found.append(f"{check.state:<5}  {check.name:<10} {check.fact}")
        found += [f"{'':<18}-> {check.remedy}"] if check.remedy else []
    return found


def check_python(version: tuple[int, int]) -> Check:
    """Return whether this Python is one that the project runs on.

    >>> check_python((3, 10)).state, check_python((3, 12)).state
    ('wrong', 'ok')
    """
    fact = f"{version[0]}.{version[1]}, {sys.executable}"
    return (
        Check("Python", "ok", fact) if version in PYTHONS else Check("Python", "wrong", fact, "use 3.11, 3.12 or 3.13")
    )


def check_installed(engine: str) -> Iterator[Check]:
    """Give what there is to say of the engine, its compiler and the threads of BLAS."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.installed", engine], capture_output=True, text=True, timeout=SECONDS
        )
        said = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
    except subprocess.TimeoutExpired:
        done, said = None, [f"an import takes more than {SECONDS} s"]
    if done is None or done.returncode:
        remedy = "pip install -e . in a new environment (README, Run it)"
        yield Check("engine", "wrong", f"{engine}: {said[0]}", remedy)
        return
    facts = json.loads(done.stdout)
    yield Check("engine", "ok", f"{engine} {facts['version']}")
    if any(part.startswith(f"tagladder-{engine}-") for part in Path(facts["folder"]).parts):
        remedy = "make ~/.cache a directory of this user, or name one in XDG_CACHE_HOME"
        yield Check("cache", "note", f"{facts['folder']}: what is compiled is not kept, a minute each night", remedy)
    if engine == "theano":
        yield check_compiler(facts["compiler"], Path(sysconfig.get_path("include")))
    yield check_threads(facts["libraries"], len(os.sched_getaffinity(0)))


def check_compiler(compiler: str, include: Path) -> Check:
    """Return whether the compiler takes a file that includes Python's headers."""
    if not compiler:
        return Check("compiler", "wrong", "there is no C++ compiler", "apt install g++, or use Python 3.12 or 3.13")
    command = [*compiler.split(), "-fsyntax-only", "-x", "c++", "-I", str(include), "-"]
    try:
        done = subprocess.run(command, input="#include <Python.h>\n", capture_output=True, text=True, timeout=SECONDS)
        said = [*done.stderr.strip().splitlines(), f"it ended with {done.returncode}"] if done.returncode else []
    except subprocess.TimeoutExpired:
        said = [f"it takes more than {SECONDS} s"]
    except OSError as error:
        said = [str(error)]
    if said:
        return Check("compiler", "wrong", f"{compiler}: {said[0]}", "apt install g++ python3-dev")
    return Check("compiler", "ok", f"{compiler}, headers in {include}")


def check_threads(libraries: Sequence[dict[str, Any]], n_cores: int) -> Check:
    """Return whether a numerical library would take more threads than there are cores.

    >>> check_threads([{"name": "openblas", "version": "0.3", "threads": 8}], 4).state
    'wrong'
    """
    shown = ", ".join(f"{each['name']} {each['version']}: {each['threads']}" for each in libraries)
    fact = f"{n_cores} cores; threads of {shown or 'no library'}"
    if any(each["threads"] > n_cores for each in libraries):
        return Check("threads", "wrong", fact, f"set OPENBLAS_NUM_THREADS and OMP_NUM_THREADS to at most {n_cores}")
    return Check("threads", "ok", f"{fact}; training and scoring take one a process")


def available_memory() -> int:
    """Return the bytes that this process may still take: of the machine, or of its control group if that is less."""
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    found = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        found = min(found, int(most) - int(used.read_text()))
    return found


def check_memory(available: int) -> Check:
    """Return whether that is enough.

    >>> check_memory(500_000_000).state, check_memory(1_500_000_000).state, check_memory(4_000_000_000).state
    ('wrong', 'note', 'ok')
    """
    fact, remedy = f"{size(available)} available", "end other programs, or lower [network] hidden and the batch sizes"
    if available >= GOOD_MEMORY:
        return Check("memory", "ok", fact)
    state: Literal["note", "wrong"] = "wrong" if available < LEAST_MEMORY else "note"
    return Check("memory", state, f"{fact}; ten million items take 1.3 GB", remedy)


def check_disk(root: Path) -> Check:
    """Return whether there is room for two more runs like the last one."""
    usage, facts = shutil.disk_usage(_there(root)), os.statvfs(_there(root))
    needed = max(LEAST_DISK, 2 * last_size(root))
    fact = f"{size(usage.free)} free for {root}, two more runs may take {size(needed)}"
    if facts.f_files and not facts.f_favail:
        return Check("disk", "wrong", f"no inode is free for {root}", "remove files on that file system")
    if usage.free < needed:
        return Check("disk", "wrong", fact, "free space, lower [storage] keep_runs, then: python -m tasks clean")
    return Check("disk", "ok", fact)


def last_size(root: Path) -> int:
    """Return the bytes of the latest run and of all that it was made from; 0 before the first."""
    try:
        latest = pointers.latest(root)
    except ArtifactError:
        return 0
    known = () if latest is None else fingerprints_of(root, latest).values()
    return sum(size_of(path) for path in published(root) if path.name in known)


def check_root(root: Path) -> Check:
    """Return whether results can be written."""
    place = _there(root)
    if not place.is_dir():
        return Check("root", "wrong", f"{place}: is no directory", "name another [storage] root")
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "root", "wrong", f"{place}: cannot be written", "give write permission, or name another [storage] root"
        )
    return Check("root", "ok", f"{root.absolute()}: can be written")


def check_store(remote: Remote) -> Check:
    """Return whether objects can be written, read, listed and removed, and whether a condition on a write is heeded."""
    key = f"probe/{secrets.token_hex(8)}.txt"
    try:
        heeded = remote.objects.write_if(key, b"1") and not remote.objects.write_if(key, b"2")
        whole = key in remote.objects.list("probe")
        remote.objects.remove([key])
    except (ArtifactError, SettingsError) as error:
        return Check("store", "wrong", str(error), "mend what it says, then ask again")
    if heeded and whole:
        return Check("store", "ok", f"{remote.objects.url}: can be written; of two writers one wins")
    remedy = "let one machine at a time write there, or use a store with conditional writes (README)"
    return Check("store", "note", f"{remote.objects.url}: lets two writers both believe that they were first", remedy)


def check_inputs(identity: Identity) -> Iterator[Check]:
    """Give a check for each input file."""
    seen = {file.path: file for files in identity.inputs.values() for file in files}
    for path, file in seen.items():
        named = f"see [{file.section}] {file.setting}"
        if file.digest is None:
            seen_from = "" if is_url(path) else f", seen from {Path.cwd()}"
            what = "cannot be read" if Path(path).exists() else f"no such file{seen_from}"
            yield Check("input", "wrong", f"{path}: {what}", named)
        elif not (n_bytes := Path(here(path)).stat().st_size):
            yield Check("input", "wrong", f"{path}: is empty", named)
        else:
            yield Check("input", "ok", f"{path}: {size(n_bytes)}")


def check_published(root: Path) -> Iterator[Check]:
    """Give what is wrong with pointers and plans; digests of results are compared by `verify`."""
    damages = list(damaged_pointers(root))
    yield from (Check("published", "wrong", damage) for damage in damages)
    if not damages:
        yield Check("published", "ok", "every pointer names a run that is there")


def check_latest(root: Path, today: datetime.date) -> Iterator[Check]:
    """Give a note where `latest` names a date to come: until then no night would move it."""
    try:
        found, fixed = pointers.latest(root), pointers.pinned(root)
    except ArtifactError:  # `check_published` tells of it.
        return
    if found is None or fixed is not None or datetime.date.fromisoformat(found.date) - today <= A_DAY:
        return
    fact = f"run {found.run[:12]} of {found.date}, a date to come: no night before it moves `latest`"
    yield Check("latest", "note", fact, f"if that date is a mistake: python -m tasks forget {found.date}")


def _there(path: Path) -> Path:
    """Return the path, or what of it is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
