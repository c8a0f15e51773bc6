"""README stays true: its commands, its snippets, its file map."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for named, text in fenced if named == language]


def test_the_file_map_names_every_module_and_no_other():
    (text,) = [block for block in blocks("") if block.startswith("pipeline/")]
    named = set(re.findall(r"^ +(\S+\.py) ", text, re.MULTILINE))
    tracked = {path.relative_to(PROJECT / top).as_posix() for top in ("pipeline", "tasks") for path in _modules(top)}
    assert named == tracked


def _modules(top: str) -> list[Path]:
    return [path for path in (PROJECT / top).rglob("*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("snippet", blocks("python"), ids=lambda text: text.split("\n")[0])
def test_every_snippet_runs_on_the_results_of_the_main_job(main_job, tmp_path, snippet):
    (tmp_path / "artifacts").symlink_to(main_job[0])
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_commands_run_what_exists():
    commands = "".join(blocks("sh"))
    assert "luigi --module tasks ScoreCatalog" in commands
    for file in re.findall(r"(?:tests|pipeline)/[\w/]+\.(?:py|cfg)", commands):
        assert (PROJECT / file).exists(), file


def test_the_output_shown_names_the_stages_and_the_summary(main_job):
    shown = next(block for block in blocks("") if block.startswith("CleanTags"))
    for line in (
        "796 read, 792 kept, 4 rejected",
        "accuracy       on the test part",
        "predictions    of items without labels first",
    ):
        assert line in shown
        assert line in main_job[1]
