"""README stays true: its commands, its snippets, its file map."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import pointers

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```([\w ]*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
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


def test_the_tutorial_leads_from_a_file_to_a_nightly_job(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    known = {name: value for name, value in os.environ.items() if not name.startswith("LUIGI_")}
    # Read after the settings of the tutorial: what it says is run as it stands, and learns less.
    (tmp_path / "quick.cfg").write_text("[training]\ncompile_mode = fast_compile\nepochs = 8\nbatch_size = 128\n")
    known["LUIGI_CONFIG_PATH"] = str(tmp_path / "quick.cfg")
    script = "set -e\n" + "".join(blocks("sh tutorial"))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**known, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "number,name,year,keywords,shelf,board" in done.stdout
    assert "BuildFeatures  runs: " in done.stdout  # of the changed label
    assert re.search(r"another path, since |0 with another path", done.stdout)
    assert done.stdout.splitlines()[-1].startswith("ScoreCatalog")  # of the script: there was nothing to do
    report = pointers.latest(tmp_path / "my-catalog" / "artifacts").report
    assert (tmp_path / "my-catalog" / "artifacts" / report / "report.html").is_file()


def test_the_output_shown_names_the_stages_and_the_summary(main_job):
    shown = next(block for block in blocks("") if block.startswith("CleanTags"))
    for line in (
        "796 read, 792 kept, 4 rejected",
        "accuracy       on the test part",
        "predictions    of items without labels first",
    ):
        assert line in shown
        assert line in main_job[1]
