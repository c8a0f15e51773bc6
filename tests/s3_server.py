"""A real S3 server for the tests: SeaweedFS as a process of its own on the loopback interface."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.downloads import cache_folder

KEY, SECRET = "a-key", "a-secret-word"
SECONDS_TO_START = 90
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


@dataclass(frozen=True)
class S3:
    """A bucket, and how it is reached."""

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which a process finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def through(self, port: int) -> "S3":
        """Return the same bucket by way of another port of this machine."""
        return replace(self, endpoint=f"http://127.0.0.1:{port}")

    def open(self) -> Any:
        """Return a file system of fsspec that talks to the server itself."""
        import s3fs

        options = {"use_listings_cache": False, "skip_instance_cache": True}
        return s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=self.endpoint, **options)


@contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """Run a server whose data lie in the folder, until the end of the context."""
    (folder / "data").mkdir(parents=True)
    actions = ["Admin", "Read", "Write", "List"]
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    *ports, port, grpc = free_ports(len(PORTS) + 2)
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"]
    command += ["-volume.max=16", "-master.volumeSizeLimitMB=64", f"-s3.config={folder / 's3.json'}"]
    command += [f"-{name}={number}" for name, number in zip(PORTS, ports, strict=True)]
    command += [f"-s3.port={port}", f"-s3.port.grpc={grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-s3.autoCreateBucket=false"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        found = S3(f"http://127.0.0.1:{port}", "tests")
        _wait(found, process, folder / "log.txt")
        yield found
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(found: S3, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a bucket was made and written to."""
    until = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with socket.create_connection(("127.0.0.1", found.port), timeout=1):
                break
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.1)
    opened = found.open()
    while True:
        try:
            if not opened.exists(found.bucket):
                opened.mkdir(found.bucket)
            opened.pipe_file(f"{found.bucket}/is-up", b"yes")
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.2)


def own_cache(folder: Path) -> dict[str, str]:
    """Return the variable that names a new cache for copies; what the engines have compiled is shared."""
    (folder / "tagladder").mkdir(parents=True)
    for engine in ("theano", "pytensor"):
        known = cache_folder() / engine
        known.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "tagladder" / engine).symlink_to(known)
    return {"XDG_CACHE_HOME": str(folder)}


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
