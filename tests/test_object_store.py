"""The job with files and results in an object store: a real S3 server on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from s3_server import S3, own_cache
from small_job import DATE, SETTINGS, Project, write_items
from tcp_proxy import passing

from pipeline import stores
from pipeline.errors import ArtifactError
from pipeline.object_store import ObjectStore
from tasks.retries import may_pass

BY_URL = SETTINGS.replace("items = items.csv", "items = {items}").replace("tries = 1\n", "tries = 1\nroot = {root}\n")


@pytest.fixture(scope="module")
def night(s3, tmp_path_factory) -> Project:
    """A project whose processes know the server; catalog and results lie there."""
    folder = tmp_path_factory.mktemp("night")
    night = Project(folder, {**s3.environment, **own_cache(folder / "cache")})
    (folder / "luigi.cfg").write_text(BY_URL.format(items=put_items(s3, folder), root=f"{s3.url}/results"))
    return night


@pytest.fixture(scope="module")
def ran(night) -> str:
    """What a run with several workers said, each of them a fork of a process that has looked into the store."""
    return night.score("--workers", "2")


@pytest.fixture
def environment(s3, monkeypatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    yield
    stores.close()


def put_items(s3: S3, folder: Path, **change: object) -> str:
    """Write a small catalog into the bucket and return its URL."""
    write_items(folder / "local.csv", **change)
    s3.open().put_file(str(folder / "local.csv"), f"{s3.bucket}/in/items.csv")
    return f"{s3.url}/in/items.csv"


def ask(night: Project, *arguments: str, code: int = 0) -> str:
    """Run a command of `python -m tasks` and return what it said."""
    command = [sys.executable, "-m", "tasks", *arguments]
    known = night.known_environment()
    done = subprocess.run(command, cwd=night.folder, env=known, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout


def test_catalog_and_root_by_url_give_the_bytes_that_a_disk_gives(first_run, night, ran, s3):
    opened = s3.open()
    (local,) = first_run[0].root.glob("score/*/scores.parquet/part-00000.parquet")
    (there,) = [path for path in opened.find(f"{s3.bucket}/results/score") if path.endswith("part-00000.parquet")]
    assert opened.cat_file(there) == local.read_bytes()
    assert not (night.folder / "artifacts").exists()
    assert "Unclosed" not in ran and "a-secret-word" not in ran
    objects = b"".join(opened.cat(opened.find(f"{s3.bucket}/results")).values())
    assert b"a-secret-word" not in objects


def test_other_tools_read_a_run_as_the_pointer_names_it(night, ran, s3, environment):
    pointer = json.loads(s3.open().cat_file(f"{s3.bucket}/results/published/latest.json"))
    scores = pandas.read_parquet(f"{s3.url}/results/{pointer['folder']}/scores.parquet")
    assert len(scores) == 31
    assert f"results        {s3.url}/results/{pointer['folder']}/scores.parquet" in ran
    assert ask(night, "where").strip() == f"{s3.url}/results/{pointer['folder']}"
    assert s3.open().exists(f"{s3.bucket}/results/{pointer['model_file']}")


def test_another_machine_has_nothing_to_do_and_sees_all_of_it(night, ran, s3, tmp_path):
    other = Project(night.folder, {**night.environment, **own_cache(tmp_path / "cache")})
    assert "nothing to do" in other.score()
    told = json.loads(ask(other, "status", "--date", DATE, "--json"))
    assert (told["complete"], told["root"]) == (True, f"{s3.url}/results")
    assert all(stage["folder"].startswith(f"{s3.url}/results/") for stage in told["stages"])
    assert "7 directories verified, no damages" in ask(other, "verify")
    assert f"0 B freed below {s3.url}/results" in ask(other, "clean")
    assert "of two writers one wins" in ask(other, "doctor", "--date", DATE)


def test_a_new_version_of_a_file_is_seen(night, ran, s3, tmp_path):
    put_items(s3, tmp_path, first="living dead")
    assert f"CleanTags      runs: file {s3.url}/in/items.csv" in ask(night, "explain", "--date", DATE)
    put_items(s3, tmp_path)


def test_a_url_where_nothing_lies_ends_with_20_and_names_the_setting(night, s3):
    absent = f"{s3.url}/in/{{date}}.csv"
    code, _, told = night.run("ScoreCatalog", "--date", DATE, "--catalog-items", absent)
    assert (code, f"input: {s3.url}/in/{DATE}.csv: no such file; see [catalog] items" in told) == (20, True), told


def test_a_store_that_refuses_is_told_without_credentials(night, s3):
    wrong = Project(night.folder, night.environment | {"AWS_SECRET_ACCESS_KEY": "another-secret"})
    code, _, told = wrong.run("ScoreCatalog", "--date", DATE)
    assert (code, "is refused" in told, "another-secret" in told) == (40, True, False), told


def test_a_forked_process_opens_the_store_for_itself(s3, environment):
    store = ObjectStore(f"{s3.url}/forked")
    store.write("a", b"parent")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, store.read("a").content)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"parent"
    assert store.read("a").content == b"parent"


def test_a_connection_that_hangs_is_given_up_and_tried_again(s3, environment, monkeypatch):
    monkeypatch.setitem(stores._S3, "read_timeout", 0.5)
    with passing(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.through(proxy.port).endpoint)
        proxy.seconds = 5
        proxy.decide = lambda number, request: "delay" if number == 1 else "pass"
        store = ObjectStore(f"{s3.url}/hangs")
        store.write("a", b"1")
        assert store.read("a").content == b"1"
        assert len(proxy.requests) > 3


def test_a_store_that_does_not_answer_may_be_better_in_a_while(s3, environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setitem(stores._S3, "retries", {"total_max_attempts": 1})
    with pytest.raises(ArtifactError, match=f"{s3.url}/away/a: there is no answer") as told:
        ObjectStore(f"{s3.url}/away").read("a")
    assert may_pass(told.value)


def test_a_refusal_will_not_be_better_in_a_while(s3, environment, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(ArtifactError, match="is refused") as told:
        ObjectStore(f"{s3.url}/refused").read("a")
    assert not may_pass(told.value)


def test_a_bucket_that_is_not_there_is_told(environment):
    with pytest.raises(ArtifactError, match="s3://no-such-bucket/a: there is no such bucket"):
        ObjectStore("s3://no-such-bucket").write("a", b"1")
    with pytest.raises(ArtifactError, match="s3://no-such-bucket/a: there is no such bucket"):
        ObjectStore("s3://no-such-bucket").write_if("a", b"1")
