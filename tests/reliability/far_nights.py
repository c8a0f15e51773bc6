"""A tiny job whose root lies on the S3 server, in a process that can be killed, and what it should leave there."""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nights import TONIGHT, Follower, Night
from s3_server import S3, own_cache
from small_job import DATE, SETTINGS, write_items
from tcp_proxy import passing

from pipeline.digests import unsealed

FAR = SETTINGS.replace("tries = 1\n", "tries = 1\nroot = {url}\nlocal = {local}\nunfinished_hours = {hours}\n")
LONG = "epochs = 6\npatience = 6\n"
TIMED = ("history.csv", "training.json")


@dataclass
class FarNight(Night):
    """A project of one machine, whose results lie below a prefix of the bucket."""

    s3: S3 = field(default_factory=lambda: S3("", ""))
    prefix: str = ""
    machine: str = "one"

    @property
    def root(self) -> Path:
        """Return the working copy."""
        return self.folder / f"copy-{self.machine}"

    def on(self, machine: str) -> "FarNight":
        """Return the same project on a machine that has no working copy yet."""
        folder = self.folder / machine
        folder.mkdir()
        shutil.copy(self.folder / "items.csv", folder / "items.csv")
        return FarNight(folder, self.environment, self.s3, self.prefix, machine).configured()

    def through(self, s3: S3) -> "FarNight":
        """Return the same project, whose jobs reach the server by another port."""
        return FarNight(self.folder, self.environment | s3.environment, self.s3, self.prefix, self.machine)

    def configured(self, *, hours: float = 48) -> "FarNight":
        """Write luigi.cfg for this machine, and return the project."""
        url = f"{self.s3.url}/{self.prefix}"
        text = FAR.format(url=url, local=self.root, hours=hours).replace("epochs = 1\n", LONG)
        (self.folder / "luigi.cfg").write_text(text)
        return self

    def stored(self) -> dict[str, bytes]:
        """Return all objects below the prefix, by key."""
        opened, start = self.s3.open(), len(f"{self.s3.bucket}/{self.prefix}/")
        return {path[start:]: opened.cat_file(path) for path in opened.find(f"{self.s3.bucket}/{self.prefix}")}

    def content(self) -> dict[str, str]:
        """Return what readers see, by attempt-free names: digests of the listed files, pointers and plans.

        Raises AssertionError where a manifest lists what is not there, or is other.
        """
        return content_of(self.stored())


def content_of(objects: dict[str, bytes]) -> dict[str, str]:
    manifests = {key: unsealed(data.decode()) for key, data in objects.items() if key.endswith("/manifest.json")}
    found, attempts = {}, {}
    for key, manifest in manifests.items():
        place = key.removesuffix("/manifest.json")
        attempts[place] = manifest["attempt"]
        for name, facts in manifest["files"].items():
            data = objects[f"{place}/{manifest['attempt']}/{name}"]
            assert hashlib.sha256(data).hexdigest() == facts["sha256"], (place, name)
            found[f"{place}/{name}"] = "" if name in TIMED else facts["sha256"]
    for key, data in objects.items():
        if key.startswith("published/"):
            pointer = unsealed(data.decode())
            for place in (pointer["folder"], pointer["changes"], pointer["model_file"].rpartition("/")[0]):
                assert place is None or attempts[place.rpartition("/")[0]] == place.rpartition("/")[2], key
            found[key] = f"{pointer['run']} {pointer['model']} {pointer['plan']} {pointer['changes'] is not None}"
        elif key.startswith("plan/"):
            found[key] = hashlib.sha256(data).hexdigest()
    return found


def unlisted(objects: dict[str, bytes]) -> list[str]:
    """Return objects of attempts that no manifest lists, and leases."""
    listed = {
        key.removesuffix("/manifest.json"): unsealed(data.decode())["attempt"]
        for key, data in objects.items()
        if key.endswith("/manifest.json")
    }
    found = []
    for key in objects:
        parts = key.split("/")
        if key.startswith("in-use/") or (len(parts) > 3 and listed.get("/".join(parts[:2])) != parts[2]):
            found.append(key)
    return found


@dataclass(frozen=True)
class FarTonight:
    """Yesterday's results in the store, today's catalog, and what an undisturbed job makes of it."""

    folder: Path
    s3: S3
    yesterday: dict[str, bytes]
    expected: dict[str, str]
    seconds: float  # that the undisturbed job took
    n_requests: int  # that it made

    @cached_property
    def runs(self) -> set[str]:
        return {key.split("/")[1] for key in self.expected if key.startswith("score/")}

    def begin(self, name: str) -> FarNight:
        """Return a project that finds yesterday's results in the store, on a machine that has none of them."""
        opened = self.s3.open()
        for key, data in self.yesterday.items():
            opened.pipe_file(f"{self.s3.bucket}/{name}/{key}", data)
        night = project(self.folder / name, self.s3, name)
        write_items(night.folder / "items.csv", first="living dead")
        return night

    def check(self, night: FarNight) -> None:
        """Assert that the store has what an undisturbed job leaves."""
        assert sorted(night.content().items() ^ self.expected.items()) == []


def project(folder: Path, s3: S3, prefix: str) -> FarNight:
    """Return a project without results."""
    folder.mkdir()
    environment = {**s3.environment, **own_cache(folder / "cache")}
    night = FarNight(folder, environment, s3, prefix).configured()
    write_items(folder / "items.csv")
    return night


def make_far_tonight(folder: Path, s3: S3) -> FarTonight:
    """Run yesterday's job, change the catalog, and run today's."""
    folder.mkdir()
    night = project(folder / "undisturbed", s3, "undisturbed")
    night.succeeds("ScoreCatalog", "--date", DATE)
    yesterday = {key: data for key, data in night.stored().items() if not key.startswith("in-use/")}
    write_items(night.folder / "items.csv", first="living dead")
    with passing(s3.port) as proxy:
        started = time.monotonic()
        night.on("two").through(s3.through(proxy.port)).succeeds(*TONIGHT)
        seconds = time.monotonic() - started
    return FarTonight(folder, s3, yesterday, night.content(), seconds, len(proxy.requests))


class FarReader(Follower):
    """Follows the pointer in the store all the while, as another tool does."""

    def __init__(self, night: FarNight) -> None:
        super().__init__()
        self.opened: Any = night.s3.open()
        self.start_of = f"{night.s3.bucket}/{night.prefix}"

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self.read()
            except Exception as error:
                self.errors.append(error)
                return
            self.n_reads += 1
            time.sleep(0.05)

    def read(self) -> None:
        pointer = unsealed(self.opened.cat_file(f"{self.start_of}/published/latest.json").decode())
        place, _, attempt = pointer["folder"].rpartition("/")
        manifest = unsealed(self.opened.cat_file(f"{self.start_of}/{place}/manifest.json").decode())
        assert (manifest["attempt"], manifest["fingerprint"]) == (attempt, pointer["run"])
        for name in ("summary.json", "scores.parquet/part-00000.parquet"):
            data = self.opened.cat_file(f"{self.start_of}/{pointer['folder']}/{name}")
            assert hashlib.sha256(data).hexdigest() == manifest["files"][name]["sha256"]
        assert json.loads(self.opened.cat_file(f"{self.start_of}/{pointer['folder']}/summary.json"))
        self.runs.add(pointer["run"])


def reading_far(night: FarNight) -> FarReader:
    """Return what reads the results of a project meanwhile."""
    return FarReader(night)
