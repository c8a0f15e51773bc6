"""`python -m tasks` on the results of a small job, as a user runs it."""

import datetime
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_job import DATE, write_items

from pipeline import artifacts, digests, doctor, files, invalidation, leases, manifests, pointers, reasons, status
from pipeline.locks import held, holder
from pipeline.reasons import Explained, Reason, Wanted
from pipeline.status import StageState, table
from tasks import commands
from tasks.__main__ import COMMANDS, make_parser

STAGES = ("CleanTags", "CheckDrift", "BuildFeatures", "TrainModel", "ExportModel", "CheckModel", "ScoreCatalog")


@pytest.fixture
def ask(project):
    """Run a command in the project's directory and return what it said; the exit code must be as told."""

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tasks", *arguments],
            cwd=project.folder,
            env=project.known_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


NEEDED = {"invalidate": ["train"], "forget": [DATE]}  # what a command does not go without


def bytes_below(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_status_tells_of_every_stage_what_stands(project, ask):
    told = json.loads(ask("status", "--date", DATE, "--json"))
    assert told["complete"] is True
    assert [stage["stage"] for stage in told["stages"]] == list(STAGES)
    for stage in told["stages"]:
        folder = project.folder / stage["folder"]
        assert stage["state"] == "complete"
        assert stage["fingerprint"] == folder.name
        assert stage["size"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert stage["seconds"] == artifacts.manifest(folder)["seconds"]
    assert told["pointer"] == told["latest"]
    assert told["pointer"]["run"] == told["stages"][-1]["fingerprint"]
    shown = ask("status", "--date", DATE)
    assert f"run of {DATE} below artifacts: complete" in shown
    for stage in STAGES:
        assert f"\n{stage} " in shown


def test_status_of_a_date_that_has_not_run_exits_1(ask):
    shown = ask("status", "--date", "2026-11-24", "--training-epochs", "2", code=1)
    assert "run of 2026-11-24 below artifacts: not complete" in shown
    assert "\nBuildFeatures  complete" in shown
    assert "\nTrainModel     missing" in shown


def test_status_says_how_a_stage_that_is_not_complete_ended(project, ask):
    flags = ("--date", DATE, "--training-learning-rate", "1e30")
    assert project.run("ScoreCatalog", *flags)[0] == 30
    shown = ask("status", *flags, code=1)
    assert re.search(r"\nTrainModel     missing   [0-9a-f]{12}  failed 20\S+ UTC: training diverged", shown)
    (project.root / "ledger.sqlite").write_bytes(b"no database")
    assert "ledger.sqlite: cannot be used" in ask("status", "--date", DATE)


def explained(ask, *arguments: str) -> dict[str, list[str]]:
    """Return the reasons of the stages that would run."""
    told = json.loads(ask("explain", "--json", *arguments))
    return {
        stage["stage"]: [str(Reason(**reason)) for reason in stage["reasons"]]
        for stage in told["stages"]
        if stage["runs"]
    }


def test_explain_names_the_setting_with_its_old_and_new_value_and_the_stages_that_follow(ask):
    assert explained(ask, "--date", DATE) == {}
    assert explained(ask, "--date", DATE, "--training-epochs", "2", "--scoring-n-best", "1") == {
        "TrainModel": ["[training] epochs 1 -> 2"],
        "ExportModel": ["TrainModel runs"],
        "ScoreCatalog": ["[scoring] n_best 3 -> 1", "ExportModel runs"],
    }
    assert "TrainModel     runs: [training] epochs 1 -> 2\n" in ask("explain", "--date", DATE, "--training-epochs", "2")


def test_explain_names_the_file_that_changed_with_both_digests(project, ask):
    before = digests.sha256_of(project.folder / "items.csv")[:12]
    write_items(project.folder / "items.csv", first="living dead")
    after = digests.sha256_of(project.folder / "items.csv")[:12]
    found = explained(ask, "--date", "2026-11-24")
    assert found["CleanTags"] == [f"file items.csv {before} -> {after}"]
    assert found["BuildFeatures"] == ["CleanTags runs"]
    assert "CheckDrift" not in found  # with which run it compares is known when the date is planned


def test_explain_tells_damage_and_what_is_gone(project, ask):
    (train,) = (project.root / "train").iterdir()
    (train / "history.csv").unlink()
    (score,) = (project.root / "score").iterdir()
    files.remove(score)
    assert explained(ask, "--date", DATE) == {
        "TrainModel": ["its directory is damaged: a file is missing, or not of its size"],
        "ScoreCatalog": ["its directory is gone"],
    }


def test_explain_tells_when_only_the_pointer_is_written(ask):
    shown = ask("explain", "--date", "2026-11-25", "--against", DATE)
    assert shown.startswith("compared with run ")
    assert "runs:" not in shown
    assert "only the pointer of 2026-11-25 is written: there is none" in shown
    assert "2026-01-01: nothing is published for this date" in ask("explain", "--against", "2026-01-01", code=1)


def test_where_prints_the_directory_of_a_run_and_its_model(project, ask):
    pointer = pointers.latest(project.root)
    assert (
        ask("where") == ask("where", "--date", DATE) == ask("where", pointer.run[:9]) == f"artifacts/{pointer.folder}\n"
    )
    assert ask("where", "--model") == f"artifacts/export/{pointer.model}/model.h5\n"
    assert ask("where", "--date", "2026-01-01", code=1).startswith(
        "where: 2026-01-01: nothing is published for this date; there are "
    )
    assert "where: nothing: nothing is published yet" in ask("where", "--storage-root", "nothing", code=1)
    assert "RUN and --date: give one of them" in ask("where", "abcdef", "--date", DATE, code=40)
    assert "--report: not allowed with argument --model" in ask("where", "--model", "--report", code=2)
    assert f"has no report; make it: luigi --module tasks Report --of {DATE}\n" in ask("where", "--report", code=1)


def test_verify_names_each_damaged_file(project, ask):
    assert ask("verify") == "7 directories verified, no damages\n"
    harmed = [next(project.root.glob(place)) for place in ("clean/*/items.parquet", "export/*/manifest.json")]
    for path in harmed:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    pointers.of_date(project.root, DATE).write_text("{")
    told = json.loads(ask("verify", "--json", code=1))
    assert told["directories"] == 7
    assert sorted(damage.partition(":")[0] for damage in told["damages"]) == sorted(
        str(path.relative_to(project.folder)) for path in (*harmed, pointers.of_date(project.root, DATE))
    )
    assert "7 directories verified, 3 damages\n" in ask("verify", code=1)


def test_an_invalidated_stage_runs_again_beside_the_published_run_which_can_be_gone_back_to(project, ask):
    latest, published = project.root / "published" / "latest.json", project.root / "published" / "latest"
    first, before, named = pointers.latest(project.root), bytes_below(published), latest.read_bytes()
    said = ask("invalidate", "score", "--date", DATE)
    assert said == f"score {first.run[:12]} is made again by the next run, with all that follows; until then it stays\n"
    assert bytes_below(published) == before
    assert explained(ask, "--date", DATE) == {"ScoreCatalog": ["it was invalidated"]}
    made = project.results()
    project.score()
    assert project.stages_since(made) == ["score"]
    second = pointers.latest(project.root)
    assert second.run != first.run
    assert bytes_below(project.root / first.folder) == before
    assert "nothing to do" in project.score()

    assert ask("rollback").startswith(f"latest is run {first.run[:12]} of {DATE}, and stays so until: ")
    assert latest.read_bytes() == named
    assert bytes_below(published) == before
    assert f"latest         stays at run {first.run[:12]} of {DATE}\n" in project.score(date="2026-11-24")
    assert latest.read_bytes() == named
    shown = ask("status", "--date", "2026-11-24")
    assert f"pinned      run {first.run[:12]} of {DATE}  (another run)" in shown
    assert ask("rollback", "--release") == f"latest is run {second.run[:12]} of 2026-11-24\n"
    assert bytes_below(published) == bytes_below(project.root / second.folder)
    assert ask("rollback", first.run[:12]).startswith(f"latest is run {first.run[:12]}")


def test_what_cannot_be_invalidated_or_gone_back_to_is_told(project, ask):
    assert "invalidate: train: has no results for" in ask("invalidate", "train", "--training-seed", "9", code=1)
    assert "no other run stands before" in ask("rollback", code=1)
    assert "--release: takes no RUN" in ask("rollback", DATE, "--release", code=40)
    next((project.root / "score").glob("*/scores.h5")).write_bytes(b"damaged")
    assert "scores.h5: has changed since it was published" in ask("rollback", DATE, code=1)
    assert pointers.pinned(project.root) is None


def test_a_run_removes_what_is_not_kept_at_its_end(project, ask):
    first = pointers.latest(project.root)
    would = ask("clean", "--dry-run", "--storage-keep-runs", "1")
    assert "score/" not in would
    out = project.score("--scoring-n-best", "1", "--storage-keep-runs", "1", date="2026-11-24")
    assert "freed          " in out
    assert not (project.root / first.folder).exists()
    assert (project.root / "export" / first.model).is_dir()  # the newer run has the same model
    assert f"{DATE}: its results were removed, as [storage] keep_runs says" in ask("where", "--date", DATE, code=1)
    assert ask("verify").endswith("verified, no damages\n")
    # A date that was removed counts as done: only a gap is filled.
    days = ("--start", "2026-11-22", "--stop", "2026-11-25", "--days-back", "99999")
    code, _, err = project.run("RangeDaily", "--of", "ScoreCatalog", *days, "--scoring-n-best", "1")
    assert code == 0, err
    assert [pointer.date for pointer in pointers.of_dates(project.root)] == ["2026-11-22", "2026-11-24"]
    assert pointers.latest(project.root).date == "2026-11-24"
    # Asked for by its date, it is made again.
    project.score(date=DATE)
    assert pointers.read(pointers.of_date(project.root, DATE)).run == first.run


def test_a_date_to_come_at_which_latest_stays_is_told_and_can_be_forgotten(project, ask):
    assert "latest         stays" not in project.score("--scoring-n-best", "2", date="2062-11-23")
    later = pointers.latest(project.root)
    said = project.score(date="2026-11-24")
    assert f"latest         stays at run {later.run[:12]} of 2062-11-23, a later date\n" in said
    assert "if that date is a mistake: python -m tasks forget 2062-11-23\n" in said
    first = pointers.read(pointers.of_date(project.root, DATE))
    assert ask("forget", "2062-11-23") == f"2062-11-23 is forgotten; latest is run {first.run[:12]} of 2026-11-24\n"
    assert ask("verify").endswith(", no damages\n")
    assert "2062-11-23: nothing is published for this date" in ask("forget", "2062-11-23", code=1)


def test_clean_tells_what_it_freed(project, ask):
    half = project.root / "work" / ("0" * 64) / "build"
    half.mkdir(parents=True)
    (half / "items.parquet").write_bytes(bytes(5000))
    assert f"would be removed  work/{'0' * 64}  5.0 kB\n" in ask("clean", "--dry-run")
    told = json.loads(ask("clean", "--json"))
    assert {"path": f"work/{'0' * 64}", "size": 5000} in told["removed"]
    assert not half.parent.exists()
    assert ask("clean").endswith("0 B freed below artifacts\n")


def test_doctor_finds_nothing_wrong_here_and_tells_what_it_looked_at(ask):
    told = json.loads(ask("doctor", "--json"))
    names = [check["name"] for check in told]
    assert names[:2] == ["Python", "engine"]
    assert {"threads", "memory", "disk", "root", "settings", "input", "published"} <= set(names)


def test_doctor_exits_1_with_a_remedy_for_what_is_wrong(project, ask):
    (project.folder / "items.csv").unlink()
    shown = ask("doctor", code=1)
    assert f"wrong  input      items.csv: no such file, seen from {project.folder}\n" in shown
    assert "-> see [catalog] items" in shown
    shown = ask("doctor", "--training-epochs", "0", code=1)
    assert "wrong  settings   [training] epochs = 0: Input should be greater than or equal to 1" in shown


def test_mistakes_on_the_command_line_are_told_in_one_line(ask):
    assert ask("status", "--trainnig-epochs", "2", code=40) == (
        "settings: --trainnig-epochs: no such flag; did you mean '--training-epochs'?\n"
    )
    assert ask("where", "--training-epochs", "0", code=40).startswith("settings: [training] epochs = 0")
    assert "2026-13-01: is not a date as YYYY-MM-DD" in ask("status", "--date", "2026-13-01", code=2)


def test_every_command_has_a_meaning_and_a_help():
    parser = make_parser()
    for name, (_, meaning) in COMMANDS.items():
        assert meaning[0].islower()
        assert callable(parser.parse_args([name, *NEEDED.get(name, [])]).run)


# --- the ideas behind them


def published(root: Path, stage: str, name: str, **facts: object) -> Path:
    folder = root / stage / name
    given = {"stage": stage, "fingerprint": name, "stage_version": 1, "settings": {}, "upstreams": {}, **facts}
    artifacts.publish(folder, lambda path: None, work=root / "work" / name, facts=given)
    return folder


def last_run(root: Path) -> pointers.Pointer:
    published(root, "clean", "c1", inputs={"a.csv": "1" * 64, "b.csv": "2" * 64})
    published(root, "export", "e1", upstreams={"clean": "c1"})
    published(root, "score", "s1", upstreams={"export": "e1", "scored": "c1"})
    return pointers.Pointer(date="2026-11-23", run="s1", folder="score/s1", model="e1", plan="plan/p.json")


def why(root: Path, name: str, folder: str, invalidated: frozenset[str] = frozenset(), **facts: object) -> list[str]:
    given = {"stage_version": 1, "settings": {}, "upstreams": {}, **facts}
    wanted = [Wanted(name, name, root / folder, given)]
    (found,) = reasons.explain(wanted, root, last_run(root), invalidated=invalidated)
    assert found == Explained(name, True, found.reasons)
    return [str(reason) for reason in found.reasons]


def test_a_new_version_of_the_code_and_another_upstream_are_reasons(tmp_path):
    found = why(tmp_path, "export", "export/e2", stage_version=2, upstreams={"clean": "c2"})
    assert found == ["version of the stage's code 1 -> 2", "upstream clean c1 -> c2"]


def test_new_absent_and_renamed_files_are_told_apart(tmp_path):
    inputs = {"a.csv": "", "renamed.csv": "2" * 64, "new.csv": "3" * 64}
    assert why(tmp_path, "clean", "clean/c2", inputs=inputs) == [
        f"file a.csv {'1' * 12} -> absent",
        f"file new.csv is new: none -> {'3' * 12}",
    ]
    as_table = {"a.csv": "1" * 64, "b.tsv": "2" * 64}
    assert why(tmp_path, "clean", "clean/c3", inputs=as_table) == [f"file b.tsv is new: none -> {'2' * 12}"]
    assert why(tmp_path, "clean", "clean/c4", inputs={"a.csv": "1" * 64}) == [
        f"file b.csv is read no more: {'2' * 12} -> none"
    ]


def test_a_stage_that_the_last_run_did_not_have_has_nothing_to_compare_with(tmp_path):
    assert why(tmp_path, "train", "train/t1") == ["it has no results to compare with"]
    assert why(
        tmp_path, "score", "score/s2", invalidated=frozenset({"s1"}), upstreams={"export": "e1", "scored": "c1"}
    ) == ["it was invalidated"]


def test_a_library_of_another_version_is_told_and_is_no_reason(tmp_path, monkeypatch):
    folder = tmp_path / last_run(tmp_path).folder
    assert reasons.changed_versions(folder) == []
    known = manifests.versions()
    monkeypatch.setattr("pipeline.reasons.versions", lambda: {**known, "numpy": "9.9"})
    assert reasons.changed_versions(folder) == [Reason("numpy", known["numpy"], "9.9")]


def test_a_stage_that_another_process_builds_is_running(tmp_path):
    work = tmp_path / "work" / "f1"
    code = (
        "import sys; from pathlib import Path; from pipeline.locks import held\n"
        "with held(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(work / "lock")]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = status.state_of("TrainModel", tmp_path / "train" / "f1", work=work)
        process.communicate("")
    assert found == StageState("TrainModel", "running", "f1", str(tmp_path / "train" / "f1"), process=process.pid)
    assert table([found], now=datetime.datetime.now().astimezone())[1].endswith(f"process {process.pid} is at it")
    assert status.state_of("TrainModel", tmp_path / "train" / "f1", work=work).state == "missing"


def test_to_ask_who_holds_a_lock_takes_nothing(tmp_path):
    assert holder(tmp_path / "absent" / "lock") is None
    with held(tmp_path / "lock"):
        pass
    assert holder(tmp_path / "lock") is None


def test_a_compiler_without_headers_and_one_that_is_absent_are_wrong(tmp_path):
    found = doctor.check_compiler("g++", tmp_path)
    assert (found.state, found.remedy) == ("wrong", "apt install g++ python3-dev")
    assert "Python.h" in found.fact
    assert doctor.check_compiler("", tmp_path).state == "wrong"
    assert "No such file" in doctor.check_compiler(str(tmp_path / "no-g++"), tmp_path).fact


def test_a_compiler_that_fails_without_a_word_or_hangs_is_wrong(tmp_path, monkeypatch):
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    found = doctor.check_compiler(str(compiler), tmp_path)
    assert (found.state, found.fact) == ("wrong", f"{compiler}: it ended with 1")
    monkeypatch.setattr(doctor, "SECONDS", 0.1)
    compiler.write_text("#!/bin/sh\nexec sleep 5\n")
    assert doctor.check_compiler(str(compiler), tmp_path).fact == f"{compiler}: it takes more than 0.1 s"


def test_a_latest_run_of_a_date_to_come_is_told_with_the_remedy(tmp_path):
    run = last_run(tmp_path)
    pointers.point(tmp_path, run)
    assert list(doctor.check_latest(tmp_path, datetime.date(2026, 11, 22))) == []  # elsewhere it is the day after
    (found,) = doctor.check_latest(tmp_path, datetime.date(2026, 11, 21))
    assert (found.state, found.remedy) == ("note", "if that date is a mistake: python -m tasks forget 2026-11-23")
    pointers.pin(tmp_path, run)
    assert list(doctor.check_latest(tmp_path, datetime.date(2026, 11, 21))) == []


def test_what_another_process_removes_or_mends_while_it_is_verified_is_not_damaged(tmp_path, monkeypatch, capsys):
    last_run(tmp_path)
    gone, mended, harmed = (tmp_path / place for place in ("clean/c1", "export/e1", "score/s1"))
    for folder in (gone, mended, harmed):
        (folder / "extra").touch()
    look, seen = artifacts.damages, []

    def damages(folder):
        found = list(look(folder))
        seen.append(folder)
        if folder == harmed and seen.count(harmed) == 1:
            files.remove(gone)
            (mended / "extra").unlink()
        return iter(found)

    monkeypatch.setattr(artifacts, "damages", damages)
    chosen = make_parser().parse_args(["verify"])
    assert chosen.run(chosen, ["--storage-root", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{harmed}/extra: ") and said[1] == "2 directories verified, 1 damages"
    assert (artifacts.disowned(harmed), artifacts.disowned(mended), gone.exists()) == (True, False, False)
    with held(leases.guard(tmp_path)):
        assert leases.needed(tmp_path) == {"c1", "e1", "s1"}  # until the command ends


def test_where_nothing_can_be_written_results_are_read_all_the_same(tmp_path):
    (tmp_path / "file").touch()
    commands.need(tmp_path / "file", {"f1"})


def test_an_engine_that_cannot_be_imported_is_wrong_and_says_why():
    (found,) = doctor.check_installed("no_such_engine")
    assert (found.state, found.name) == ("wrong", "engine")
    assert "no_such_engine" in found.fact


def test_a_full_disk_and_a_root_that_is_a_file_are_wrong(tmp_path, monkeypatch):
    assert doctor.check_disk(tmp_path / "artifacts").state == "ok"
    monkeypatch.setattr(doctor, "LEAST_DISK", 10**18)
    assert doctor.check_disk(tmp_path / "artifacts").state == "wrong"
    (tmp_path / "file").write_text("")
    assert doctor.check_root(tmp_path / "file").state == "wrong"
    assert doctor.check_root(tmp_path / "artifacts").state == "ok"
    assert doctor.available_memory() > 0


def test_the_last_run_counts_with_all_that_it_was_made_from(tmp_path):
    assert doctor.last_size(tmp_path) == 0
    pointers.point(tmp_path, last_run(tmp_path))
    assert doctor.last_size(tmp_path) == sum(
        files.size_of(tmp_path / place) for place in ("clean/c1", "export/e1", "score/s1")
    )


def test_a_model_that_was_invalidated_is_not_chosen_again(project):
    model = pointers.latest(project.root).model
    invalidation.invalidate(project.root, {"export": model})
    write_items(project.folder / "items.csv", first="living dead")
    made = project.results()
    project.score("--training-refresh", "7 days", date="2026-11-24")
    assert "train" in project.stages_since(made)
