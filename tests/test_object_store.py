"""The job with files and results in an object store: a real S3 server on this machine."""

from pathlib import Path

import pytest
from s3_server import own_cache
from small_job import DATE, SETTINGS, Project, write_items

FROM_S3 = SETTINGS.replace("items = items.csv", "items = {items}")


@pytest.fixture
def night(s3, tmp_path) -> Project:
    """A project without results whose processes know the server."""
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", {**s3.environment, **own_cache(tmp_path / "cache")})


def put_items(s3, key: str, folder: Path, **change: object) -> str:
    """Write a small catalog into the bucket and return its URL."""
    write_items(folder / "local.csv", **change)
    s3.open().put_file(str(folder / "local.csv"), f"{s3.bucket}/{key}")
    return f"{s3.url}/{key}"


def test_a_catalog_by_url_gives_the_bytes_that_a_file_gives(first_run, night, s3, tmp_path):
    url = put_items(s3, "in/items.csv", tmp_path)
    (night.folder / "luigi.cfg").write_text(FROM_S3.format(items=url))
    night.score()
    scores = {path.parent.parent.name: path.read_bytes() for path in night.root.glob("score/*/scores.parquet/*")}
    local = first_run[0].root.glob("score/*/scores.parquet/*")
    assert scores == {path.parent.parent.name: path.read_bytes() for path in local}
    assert "nothing to do" in night.score()
    put_items(s3, "in/items.csv", tmp_path, first="living dead")
    before = night.results()
    night.score()
    assert "clean" in night.stages_since(before)
    assert "a-secret-word" not in "".join(path.read_text("utf-8", "replace") for path in night.root.rglob("*.json"))


def test_a_url_where_nothing_lies_ends_with_20_and_names_the_setting(night, s3):
    (night.folder / "luigi.cfg").write_text(FROM_S3.format(items=f"{s3.url}/in/{{date}}.csv"))
    code, _, told = night.run("ScoreCatalog", "--date", DATE)
    assert (code, f"input: {s3.url}/in/{DATE}.csv: no such file; see [catalog] items" in told) == (20, True), told


def test_a_store_that_refuses_is_told_without_credentials(night, s3):
    night.environment["AWS_SECRET_ACCESS_KEY"] = "another-secret"
    (night.folder / "luigi.cfg").write_text(FROM_S3.format(items=f"{s3.url}/in/items.csv"))
    code, _, told = night.run("ScoreCatalog", "--date", DATE)
    assert (code, "is refused" in told, "another-secret" in told) == (40, True, False), told
