"""Who hears of a night: metrics for Prometheus, and logs for machines."""

import email.policy
import json
import re
import socketserver
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from small_job import DATE
from test_ledger import BEGUN

from pipeline import exposition, ledger
from pipeline.ledger import Entry

DONE = replace(BEGUN, seconds=2.5, n_rows=31, peak_mb=2.0, result=ledger.DONE)
SAMPLE = re.compile(r'tagladder_[a-z_]+(\{stage="[a-z]+"\})? -?[0-9.e+]+')


def values(text: str) -> dict[str, float]:
    """Return every sample of a text in the exposition format, each line of which must be as the format has it."""
    assert text.endswith("\n")
    lines = text.splitlines()
    samples = [line for line in lines if not line.startswith("# ")]
    assert all(SAMPLE.fullmatch(line) for line in samples), samples
    named = {line.split()[2] for line in lines if line.startswith("# TYPE ") and line.endswith(" gauge")}
    assert {line.partition("{")[0].split()[0] for line in samples} == named
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in samples}


# --- Prometheus


def test_the_last_run_of_every_stage_counts():
    failed = replace(
        DONE, run="r2", started="2026-11-24T02:00:00+00:00", seconds=1.0, n_rows=None, result=ledger.FAILED
    )
    scored = replace(DONE, stage="score", peak_mb=None)
    found = values(exposition.render([DONE, scored, failed, replace(BEGUN, run="r3")]))
    assert found == {
        'tagladder_stage_success{stage="clean"}': 0,
        'tagladder_stage_success{stage="score"}': 1,
        'tagladder_stage_finished_timestamp_seconds{stage="clean"}': 1795485601,
        'tagladder_stage_finished_timestamp_seconds{stage="score"}': 1795399202.5,
        'tagladder_stage_duration_seconds{stage="clean"}': 1,
        'tagladder_stage_duration_seconds{stage="score"}': 2.5,
        'tagladder_stage_rows{stage="score"}': 31,
        'tagladder_stage_peak_memory_bytes{stage="clean"}': 2 << 20,
        "tagladder_last_success_timestamp_seconds": 1795399202.5,
    }


def test_a_night_with_nothing_to_do_is_a_success_and_not_the_last_run_of_the_stage():
    present = replace(DONE, stage="score", started="2026-11-24T02:00:00+00:00", seconds=0.0, result=ledger.PRESENT)
    found = values(exposition.render([replace(DONE, stage="score"), present]))
    assert found["tagladder_last_success_timestamp_seconds"] == 1795485600
    assert found['tagladder_stage_duration_seconds{stage="score"}'] == 2.5


@pytest.mark.parametrize(("reason", "accepted"), [("accepted", 1), ("refused: path of the validation part", 0)])
def test_whether_the_last_new_model_was_accepted_is_told(reason, accepted):
    assert (
        values(exposition.render([replace(DONE, stage="gate", reason=reason)]))["tagladder_model_accepted"] == accepted
    )


def test_before_the_first_night_there_is_nothing_to_tell():
    assert exposition.render([]) == ""


def test_the_parser_of_prometheus_reads_it():
    parser = pytest.importorskip("prometheus_client.parser")
    entries = [DONE, replace(DONE, stage="score"), replace(DONE, stage="gate", reason="accepted")]
    families = list(parser.text_string_to_metric_families(exposition.render(entries)))
    assert [(family.type, family.documentation != "") for family in families] == [("gauge", True)] * 7
    (rows,) = (family for family in families if family.name == "tagladder_stage_rows")
    assert [(sample.labels, sample.value) for sample in rows.samples] == [
        ({"stage": stage}, 31) for stage in ("clean", "score", "gate")
    ]


def test_a_night_replaces_the_text_file_and_a_place_that_is_none_stops_nothing(project):
    textfile = project.folder / "metrics" / "tagladder.prom"
    project.score("--monitoring-prometheus", str(textfile), "--scoring-n-best", "1")
    found = values(textfile.read_text())
    assert found['tagladder_stage_success{stage="score"}'] == found["tagladder_model_accepted"] == 1
    assert found['tagladder_stage_rows{stage="score"}'] == 31
    assert found["tagladder_last_success_timestamp_seconds"] > 1.7e9
    code, _, err = project.run("ScoreCatalog", "--monitoring-prometheus", "items.csv/x.prom", "--scoring-n-best", "2")
    assert code == 0
    assert err.count("prometheus: ") == 1


# --- mail


class MailServer(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs to be rid of a mail; the server keeps them."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while command := self.rfile.readline().split(b" ")[0].strip().upper():
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 fine\r\n")


def test_a_night_that_fails_sends_a_mail_that_says_why(project):
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer) as server:
        server.mails = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mail = f"\n[email]\nreceiver = night@example.org\n[smtp]\nhost = 127.0.0.1\nport = {server.server_address[1]}\n"
        with (project.folder / "luigi.cfg").open("a") as file:
            file.write(mail)
        assert project.run()[0] == 30
        server.shutdown()
    (received,) = (email.message_from_bytes(mail, policy=email.policy.default) for mail in server.mails)
    assert (received["To"], "CleanTags" in received["Subject"]) == ("night@example.org", True)
    texts = [part.get_content() for part in received.walk() if part.get_content_maintype() == "text"]
    assert "items.csv: there is no column 'tags'" in "".join(texts)


# --- logs


def test_every_line_is_an_object_with_the_id_of_the_run_whoever_logs(project):
    log = project.folder / "night.jsonl"
    flags = ("--monitoring-log", "json", "--monitoring-log-file", str(log), "--log-level", "INFO")
    project.score(*flags, "--scoring-n-best", "1", "--workers", "2")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (run,) = {line["run"] for line in lines}
    assert run == ledger.entries(project.root)[-1].run
    assert {"luigi-interface", "tasks.records"} <= {line["logger"] for line in lines}
    scored = [line for line in lines if line["logger"] == "tasks.records" and line["stage"] == "score"]
    assert [line["message"] for line in scored] == ["ScoreCatalog running", "ScoreCatalog done"]
    assert (scored[1]["n_rows"], scored[1]["level"]) == (31, "INFO")
    n_lines = len(lines)
    project.score(*flags, "--scoring-n-best", "1")  # the next command goes on in the same file
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["run"] for line in lines[:n_lines]} == {run} and lines[-1]["run"] != run


def test_a_failure_is_logged_with_its_reason_and_the_screen_is_as_without(project):
    log = project.folder / "night.jsonl"
    (project.folder / "items.csv").write_text("item_id,title\n1,film\n")
    plain = project.run("ScoreCatalog", "--date", DATE)
    logged = project.run("ScoreCatalog", "--date", DATE, "--monitoring-log", "json", "--monitoring-log-file", str(log))
    assert plain == logged and plain[0] == 30
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (failed,) = [line for line in lines if line["logger"] == "tasks.records" and line["level"] == "ERROR"]
    assert (failed["stage"], failed["result"]) == ("clean", "failed")
    assert failed["reason"].startswith("items.csv")
    assert any(line["logger"] == "luigi-interface" and line["level"] == "ERROR" for line in lines)


def test_a_night_that_cannot_begin_leaves_a_line_in_the_log_and_one_in_the_ledger(project):
    log = project.folder / "night.jsonl"
    flags = ("--monitoring-log", "json", "--monitoring-log-file", str(log))
    (project.folder / "items.csv").unlink()
    plain, logged = (project.run("ScoreCatalog", "--date", DATE, *more) for more in ((), flags))
    assert plain == logged and plain[0] == 20
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (told,) = [line for line in lines if line["logger"] == "tasks.plan"]
    assert (told["level"], told["message"] + "\n") == ("ERROR", plain[2])
    last = ledger.entries(project.root)[-1]
    assert (last.date, last.stage, last.result) == (DATE, "score", "failed")
    assert last.reason == "input: items.csv: is absent; see [catalog] items"


def test_a_setting_that_is_refused_is_logged_by_a_night_and_not_by_who_looks_on(project):
    log = project.folder / "night.jsonl"
    flags = ("--monitoring-log", "json", "--monitoring-log-file", str(log), "--training-epochs", "none")
    command = [sys.executable, "-m", "tasks", "status", *flags]
    assert subprocess.run(command, cwd=project.folder, env=project.known_environment()).returncode == 40
    assert not log.exists()
    code, _, err = project.run("ScoreCatalog", "--date", DATE, *flags)
    (line,) = map(json.loads, log.read_text().splitlines())
    assert (code, line["level"], f"settings: {line['message']}\n") == (40, "ERROR", err)


def test_engines_and_tracebacks_are_in_the_log_as_json_and_as_text(tmp_path):
    code = """
import logging, sys
from pipeline.config_nights import MonitoringSettings
from tasks import logs
logs.install(MonitoringSettings(log=sys.argv[1], log_file=sys.argv[2]))
logs.install(MonitoringSettings(log=sys.argv[1], log_file=sys.argv[2]))  # no second handler
logging.getLogger("theano.compile").warning("slow\\n%s", "twice")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("pipeline.x").exception("lost")
"""
    for kind in ("json", "text"):
        subprocess.run([sys.executable, "-c", code, kind, str(tmp_path / kind)], check=True)
    slow, lost = map(json.loads, (tmp_path / "json").read_text().splitlines())
    assert (slow["logger"], slow["level"], slow["message"]) == ("theano.compile", "WARNING", "slow\ntwice")
    assert "ZeroDivisionError" in lost["error"]
    assert re.match(r"[\d-]+ [\d:,]+ \w{15}-\w{6} WARNING theano.compile: slow\n", (tmp_path / "text").read_text())


def test_a_log_that_cannot_be_written_ends_with_40(project):
    code, _, err = project.run(
        "ScoreCatalog", "--monitoring-log", "json", "--monitoring-log-file", "absent/night.jsonl"
    )
    assert code == 40
    assert err.startswith("settings: [monitoring] log_file = absent/night.jsonl: cannot be written (No such file")


def test_an_entry_has_no_name_that_a_log_record_has_already():
    assert not set(Entry.__dataclass_fields__) & {"name", "msg", "args", "message", "level"}
