"""A central luigid: the job runs with it, and it shows how far each stage is and where its results lie."""

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import luigi
import pytest
from luigi.rpc import RPCError
from small_job import DATE

from pipeline import pointers
from tasks import reporting
from tasks.reporting import reported_progress

HOST = "127.0.0.1"


def answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex((HOST, port)) == 0


@pytest.fixture
def luigid(tmp_path) -> Iterator[int]:
    """The port of a central scheduler that is there for the test."""
    with closing(socket.socket()) as server:
        server.bind((HOST, 0))
        port: int = server.getsockname()[1]
    code = "from luigi.cmdline import luigid; luigid()"
    flags = ["--address", HOST, "--port", str(port), "--state-path", str(tmp_path / "state"), "--logdir", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", code, *flags], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not answers(port):
            assert process.poll() is None
            time.sleep(0.05)
        yield port
        process.terminate()


def tasks_of(port: int) -> dict[str, dict]:
    """Return what the scheduler shows of each task that is done, by its name."""
    asked = urllib.parse.urlencode({"data": json.dumps({"status": "DONE", "upstream_status": ""})})
    with urllib.request.urlopen(f"http://{HOST}:{port}/api/task_list?{asked}") as answer:
        found = json.loads(answer.read())["response"]
    return {task["name"]: task for task in found.values()}


def test_a_central_scheduler_shows_progress_status_and_a_link_of_every_stage(project, luigid):
    settings = project.folder / "luigi.cfg"
    settings.write_text(settings.read_text().replace("local_scheduler = true", "local_scheduler = false"))
    at = ("--scheduler-host", HOST, "--scheduler-port", str(luigid))
    project.score(*at, "--training-seed", "8", "--workers", "2")
    run = pointers.latest(project.root)
    shown = tasks_of(luigid)
    assert {"TrainModel", "ExportModel", "ScoreCatalog"} <= set(shown)
    for name in ("TrainModel", "ExportModel", "ScoreCatalog"):
        assert shown[name]["progress_percentage"] == 100
        assert shown[name]["params"]["date"] == DATE
    assert shown["TrainModel"]["status_message"].startswith("1/1  loss ")
    assert shown["ScoreCatalog"]["status_message"].startswith("31/31")
    assert shown["ScoreCatalog"]["tracking_url"] == (project.root / run.folder).as_uri()
    assert "nothing to do" in project.score(*at, "--training-seed", "8")


class Told(luigi.Task):
    """A task whose worker tells a list, or a scheduler that is gone."""


def test_the_scheduler_hears_of_progress_every_two_seconds_and_of_the_end(monkeypatch):
    task, told = Told(), []
    task.set_status_message = told.append
    task.set_progress_percentage = told.append
    with reported_progress(task, "Stage", link="file:///results") as progress:
        for done in range(1, 4):
            progress.update(done, 4, loss=0.5)
        monkeypatch.setattr(reporting, "SECONDS", 0)
        progress.update(4, 4)
    assert told == ["begun", "1/4  loss 0.500", 25, "4/4", 100, "4/4", 100]


def test_a_stage_goes_on_without_a_scheduler_and_asks_it_no_more(monkeypatch, caplog):
    task, tries = Told(), []

    def gone(value: object) -> None:
        tries.append(value)
        raise RPCError("no answer")

    task.set_status_message = gone
    with reported_progress(task, "Stage", link="file:///results") as progress:
        monkeypatch.setattr(reporting, "SECONDS", 0)
        for done in range(4):
            progress.update(done, 4)
    assert tries == ["begun"]
    assert "the scheduler hears no more of the progress of Told(): no answer" in caplog.text


def test_outside_a_worker_nobody_is_told():
    with reported_progress(Told(), "Stage", link="file:///results") as progress:
        progress.update(1, 2)
        progress.note("a word")
