"""README, Operating it: its commands, its line for crontab and its exit codes; and days that were missed."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_job import DATE, PROJECT, Project, write_items

from pipeline import artifacts, pointers
from tasks.__main__ import COMMANDS

README = (PROJECT / "README.md").read_text("utf-8")
LUIGI = Path(sys.executable).with_name("luigi")


def test_every_command_is_in_the_table_and_runs_as_it_stands_there(project):
    shown = re.findall(r"^\| `python -m tasks (.*?)` \|", README, re.MULTILINE)
    assert {command.split()[0] for command in shown} == set(COMMANDS)
    project.score()
    project.score("--scoring-n-best", "1", date="2062-11-23")
    for command in shown:
        done = subprocess.run(
            [sys.executable, "-m", "tasks", *shlex.split(command)],
            cwd=project.folder,
            env=project.known_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert done.stdout


def cron(project: Project) -> tuple[int, str]:
    """Run README's line as cron does: by /bin/sh, in an environment that has next to nothing."""
    (line,) = re.findall(r"^30 2 \* \* \*  (.*)$", README, re.MULTILINE)
    assert "%" not in line  # a line break to cron
    line = line.replace("/srv/tagladder", str(project.folder)).replace(".venv/bin/luigi", str(LUIGI))
    # Where the project is installed PYTHONPATH is not needed.
    known = [f"HOME={project.folder}", "PATH=/usr/bin:/bin", f"PYTHONPATH={PROJECT}"]
    done = subprocess.run(["/usr/bin/env", "-i", *known, "/bin/sh", "-c", line], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_line_for_crontab_is_silent_when_all_is_well_and_names_exit_code_and_log_when_not(project):
    assert cron(project) == (0, "")
    log = project.folder / "night.log"
    assert "scored         31 items" in log.read_text()
    assert len(pointers.of_dates(project.root)) == 2
    assert cron(project) == (0, "")
    assert ": nothing to do, run " in log.read_text().splitlines()[-1]
    (project.folder / "items.csv").rename(project.folder / "away.csv")
    assert cron(project) == (0, f"tagladder: exit 20, see {log}\n")
    assert "input: items.csv: no such file" in log.read_text()
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    assert cron(project) == (0, f"tagladder: exit 30, see {log}\n")
    settings = project.folder / "luigi.cfg"
    settings.write_text(settings.read_text().replace("epochs = 1", "epochs = none"))
    assert cron(project) == (0, f"tagladder: exit 40, see {log}\n")


def test_every_exit_code_of_luigi_and_of_signals_has_a_row():
    section = README.partition("\n## Operating it\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| .+ \| .+ \|$", section, re.MULTILINE)
    codes = {int(code) for row in rows for code in row.split(",")}
    assert codes == {0, 1, 2, 10, 20, 25, 30, 35, 40, 129, 130, 137, 143}


@pytest.mark.parametrize("listens", [True, False])
def test_the_signal_to_begin_no_more_goes_to_the_process_that_works(listens):
    code = (
        "import signal, sys, time; from tasks import supervisor\n"
        "supervisor.supervise()\n"
        f"if {listens}: signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True); time.sleep(0.5); time.sleep(10 if {listens} else 0); sys.exit(8)"
    ).replace("{listens}", str(listens))
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=20) == (7 if listens else 8)


@pytest.mark.parametrize("flags", [("--date", ""), ("--date=",), ("--ScoreCatalog-date", "")])
def test_an_empty_date_is_not_today(first_run, flags):
    code, out, err = first_run[0].run("ScoreCatalog", *flags)
    assert (code, out) == (40, "")
    assert err.startswith("settings: --date") and err.count("\n") == 1


def fill(project: Project, *flags: str) -> tuple[int, str]:
    days = ("--start", "2026-11-19", "--stop", DATE, "--days-back", "99999")
    code, _, err = project.run("RangeDaily", "--of", "ScoreCatalog", *days, *flags)
    return code, err


def test_missed_days_are_filled_each_from_its_own_file_and_latest_stays(project):
    for day, n in ((19, 31), (20, 32), (22, 33)):
        write_items(project.folder / f"items-2026-11-{day}.csv", n=n)
    newest = pointers.latest(project.root)
    flags = ("--catalog-items", "items-{date}.csv", "--training-refresh", "pinned")
    code, err = fill(project, *flags)
    assert code == 20  # one day has no file; the others are done all the same
    assert "items-2026-11-21.csv: no such file" in err
    assert [found.date[-2:] for found in pointers.of_dates(project.root)] == ["19", "20", "22", "23"]
    assert pointers.latest(project.root) == newest
    write_items(project.folder / "items-2026-11-21.csv", n=34)
    before = [path.stat().st_mtime_ns for path in sorted((project.root / "published").glob("2*.json"))]
    assert fill(project, *flags)[0] == 0
    dates = pointers.of_dates(project.root)
    assert [found.date[-2:] for found in dates] == ["19", "20", "21", "22", "23"]
    assert len({found.run for found in dates}) == 5
    assert {found.model for found in dates} == {newest.model}
    after = [path.stat().st_mtime_ns for path in sorted((project.root / "published").glob("2*.json"))]
    assert after[:2] + after[3:] == before
    assert pointers.latest(project.root) == newest


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_range_with_several_workers_fills_all_days(project, workers):
    assert fill(project, "--workers", workers)[0] == 0
    assert len(pointers.of_dates(project.root)) == 5
    assert not [path.name for path in (project.root / "work").iterdir() if path.name.startswith("in-use")]


@pytest.mark.reliability
def test_nights_that_clean_up_leave_alone_what_a_run_of_an_old_date_is_at_work_on(project):
    slow = ("--training-epochs", "300", "--training-patience", "300", "--features-max-tags", "9")
    running = project.start("ScoreCatalog", "--date", "2026-10-01", *slow)
    while not list((project.root / "work").glob("*/build/..")) or len(list((project.root / "features").iterdir())) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    for n in range(1, 4):
        project.score("--scoring-n-best", str(n), "--storage-keep-runs", "1", date=f"2026-11-2{3 + n}")
        assert running.poll() is None
    _, said = running.communicate(timeout=120)
    assert running.returncode == 0, said
    done = pointers.read(pointers.of_date(project.root, "2026-10-01"))
    assert done is not None
    assert list(artifacts.damages(project.root / done.folder)) == []
    assert pointers.latest(project.root).date == "2026-11-26"
