"""The nightly job with a stage on Spark: one setting more, the same results, and mistakes that are told at once."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from luigi.configuration import get_config
from small_job import DATE, PROJECT
from spark_session import JAVA, why_not

from pipeline.config import Settings
from pipeline.doctor import Check
from pipeline.errors import ArtifactError, SettingsError, WorkerError
from pipeline.progress import Progress
from pipeline.spark.messages import Listener, Teller
from tasks import spark
from tasks.retries import may_pass

SPARK = f"""
[spark]
master = local[2]
conf = spark.ui.enabled=false | spark.driver.extraJavaOptions={JAVA}
"""


QUICK = (  # one epoch of a tiny network
    "--training-epochs 1 --training-compile-mode fast_compile --training-members 1 --training-cross-fit false "
    "--network-hidden 4 --network-wide false --gate-enabled false --report-enabled false"
)


def published(project, stage="score"):
    (manifest,) = project.root.glob(f"{stage}/*/manifest.json")
    return json.loads(manifest.read_text())["files"]


def forget_scores(project):
    shutil.rmtree(project.root / "score")
    shutil.rmtree(project.root / "published")


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_job_on_spark_publishes_what_the_local_one_does(project):
    local = published(project)
    forget_scores(project)
    (project.folder / "luigi.cfg").write_text((project.folder / "luigi.cfg").read_text() + SPARK)
    code, out, err = project.run("ScoreCatalog", "--date", DATE, "--scoring-engine", "spark")
    assert code == 0, err
    assert published(project) == local
    assert not list(project.root.glob("work/*/spark"))
    assert "scored         31 items" in out
    assert "ScoreCatalog  31/31  items per second" in err
    before = project.results()
    project.score("--scoring-engine", "local")
    assert project.results() == before


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_cleaning_and_features_on_spark_are_the_local_ones(project):
    stages = ("clean", "features", "export")  # not train: its history.csv has times
    local = {stage: published(project, stage) for stage in stages}
    shutil.rmtree(project.root)
    (project.folder / "luigi.cfg").write_text((project.folder / "luigi.cfg").read_text() + SPARK)
    code, _, err = project.run("ScoreCatalog", "--date", DATE, "--features-engine", "spark")
    assert code == 0, err
    assert {stage: published(project, stage) for stage in stages} == local
    assert "BuildFeatures 18/18" in err


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_films_on_spark_come_to_the_same_bytes(real_data, run_luigi, tmp_path):
    (tmp_path / "luigi.cfg").write_text((PROJECT / "tests" / "settings" / "movies.cfg").read_text() + SPARK)
    environment = {"LUIGI_CONFIG_PATH": str(tmp_path / "luigi.cfg"), "TAGLADDER_DATA": str(real_data)}
    found = {}
    for engine in ("local", "spark"):
        run = SimpleNamespace(root=tmp_path / engine)
        flags = ("--features-engine", engine, "--scoring-engine", engine, "--storage-root", str(run.root))
        done = run_luigi("ScoreCatalog", "--date", DATE, *QUICK.split(), *flags, environment=environment)
        assert done.returncode == 0, done.stderr
        found[engine] = {stage: published(run, stage) for stage in ("clean", "features", "export", "score")}
    assert found["spark"] == found["local"]


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_spark_that_does_not_start_publishes_nothing_and_is_told(project):
    forget_scores(project)
    broken = SPARK.replace("conf = ", "conf = spark.driver.memory=1k | spark.hadoop.fs.s3a.secret.key=of a store | ")
    told = (project.folder / "luigi.cfg").read_text().replace("log_level = WARNING", "log_level = INFO")
    (project.folder / "luigi.cfg").write_text(told + broken)
    project.environment["A_PASSWORD"] = "to be kept"
    code, out, err = project.run("ScoreCatalog", "--date", DATE, "--scoring-engine", "spark")
    assert code == 30
    assert "Spark program failed with return code=1; its last words: " in err
    assert "Running command: " in err
    assert "to be kept" not in out + err
    assert "of a store" not in out + err
    assert not list(project.root.glob("work/*/spark"))
    assert not list(project.root.glob("score/*"))
    assert not (project.root / "published" / f"{DATE}.json").exists()


# --- settings


@pytest.fixture
def option():
    """Set options of [spark] until the test is over."""
    luigi = get_config()
    before = dict(luigi["spark"])
    yield lambda name, value: luigi.set("spark", name, value)
    luigi["spark"] = before


def on_spark(section="scoring"):
    return Settings(**{section: {"engine": "spark"}})


def test_nothing_is_asked_of_spark_where_the_engine_is_local(monkeypatch):
    monkeypatch.setenv("PATH", "")
    spark.check(Settings())


def test_without_spark_the_job_is_refused(monkeypatch, option):
    option("spark_submit", "/nowhere/spark-submit")
    with pytest.raises(
        SettingsError, match=r"^\[scoring\] engine = spark: there is no /nowhere/spark-submit; pip install"
    ):
        spark.check(on_spark())


def test_without_java_the_job_is_refused(monkeypatch, tmp_path, option):
    option("spark_submit", sys.executable)  # there is such a program
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        SettingsError, match=r"^\[features\] engine = spark: there is no .*/bin/java; Spark 4 needs Java 17"
    ):
        spark.check(on_spark("features"))


def test_a_driver_within_the_cluster_is_refused(monkeypatch, tmp_path, option):
    option("spark_submit", sys.executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(sys.executable)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    option("deploy_mode", "cluster")
    with pytest.raises(SettingsError, match=r"^\[spark\] deploy-mode = cluster: the driver writes below"):
        spark.check(on_spark())
    option("deploy_mode", "client")
    spark.check(on_spark())
    option("conf", "spark.executor.cores=2 | spark.submit.deployMode=cluster")
    with pytest.raises(SettingsError, match=r"^\[spark\] conf: spark\.submit\.deployMode = cluster: the driver writes"):
        spark.check(on_spark())


@pytest.fixture
def at_hand(monkeypatch, tmp_path, option):
    """Have a spark-submit and a Java, of which only the existence is asked."""
    option("spark_submit", sys.executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(sys.executable)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("conf", "part"),
    [
        ("spark.executor.memory", "'spark.executor.memory'"),
        ("spark.executor.memory=4g |", "''"),
        ("spark.executor.memory=4g | =2", "'=2'"),
    ],
)
def test_what_is_no_property_is_refused_before_anything_runs(at_hand, option, conf, part):
    option("conf", conf)
    with pytest.raises(
        SettingsError, match=rf"^\[spark\] conf: {part} is no property; write name=value \| name=value, and no \| at"
    ):
        spark.check(on_spark())


def test_a_file_of_properties_that_is_not_there_is_refused(at_hand, option):
    option("properties_file", "/nowhere/spark.conf")
    with pytest.raises(SettingsError, match=r"^\[spark\] properties-file = /nowhere/spark\.conf: cannot be read; name"):
        spark.check(on_spark())


def test_the_doctor_tells_of_spark_where_a_stage_is_to_run_on_it(at_hand, option):
    assert list(spark.examine(Settings())) == []
    option("master", "yarn")
    assert list(spark.examine(on_spark())) == [Check("Spark", "ok", f"{sys.executable}, on yarn")]
    option("conf", "memory")
    (check,) = spark.examine(on_spark())
    assert (check.state, check.fact) == ("wrong", "[spark] conf: 'memory' is no property")
    assert check.remedy.startswith("write name=value")


def test_who_looks_on_needs_no_java(project):
    project.environment["JAVA_HOME"] = "/nowhere"
    flags = ("--date", DATE, "--scoring-engine", "spark")
    command = [sys.executable, "-m", "tasks"]
    asked = {"cwd": project.folder, "env": project.known_environment(), "capture_output": True, "text": True}
    done = subprocess.run([*command, "status", *flags], check=False, **asked)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "doctor", *flags], check=False, **asked)
    assert done.returncode == 1
    assert "wrong  Spark      [scoring] engine = spark: there is no " in done.stdout
    code, _, err = project.run("ScoreCatalog", *flags)
    assert code == 40
    assert err.startswith("settings: [scoring] engine = spark: there is no ")


def test_options_go_to_spark_submit_as_luigi_has_them(option, monkeypatch):
    monkeypatch.delenv("PYSPARK_DRIVER_PYTHON", raising=False)
    option("spark_submit", sys.executable)
    option("master", "spark://cluster:7077")
    option("executor_memory", "3g")
    command = spark.SparkProgram(work="/work").program_args()
    shown = " ".join(command)
    assert command[:5] == [sys.executable, "--master", "spark://cluster:7077", "--deploy-mode", "client"]
    assert f"--conf spark.pyspark.driver.python={sys.executable}" in shown
    assert "--executor-memory 3g" in shown
    assert "--properties-file /work/spark.properties" in shown
    assert command[-3:] == ["--load-spark-defaults", str(spark.PROGRAM), "/work/job.json"]


def test_properties_go_by_a_file_that_nobody_else_may_read(option, tmp_path):
    option("spark_submit", sys.executable)
    option("conf", "spark.executor.memory=4g | spark.hadoop.fs.s3a.secret.key = a=b c\\d")
    program = spark.SparkProgram(work=str(tmp_path))
    program.write_properties()
    file = tmp_path / "spark.properties"
    assert file.read_text() == "spark.executor.memory=4g\nspark.hadoop.fs.s3a.secret.key=a\\=b\\ c\\\\d\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in " ".join(map(str, program.program_args()))


def test_properties_follow_those_of_the_users_file(option, tmp_path):
    (tmp_path / "own.conf").write_text("spark.executor.memory 2g\nspark.local.dir /fast")
    option("spark_submit", sys.executable)
    option("properties_file", str(tmp_path / "own.conf"))
    option("conf", "spark.executor.memory=4g")
    program = spark.SparkProgram(work=str(tmp_path))
    program.write_properties()
    told = (tmp_path / "spark.properties").read_text()
    assert told == "spark.executor.memory 2g\nspark.local.dir /fast\n\nspark.executor.memory=4g\n"
    command = program.program_args()
    assert command.count("--properties-file") == 1
    assert "--load-spark-defaults" not in command


def test_what_spark_leaves_lies_in_the_directory_of_work(option, monkeypatch, tmp_path):
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Xss4m")
    program = spark.SparkProgram(work=str(tmp_path))
    program.write_properties()
    environment = program.program_environment()
    assert environment["SPARK_LOCAL_DIRS"] == str(tmp_path)
    assert environment["SPARK_SUBMIT_OPTS"] == f"-Djava.io.tmpdir={tmp_path} -Xss4m"
    option("conf", "spark.local.dir=/fast")
    program.write_properties()
    assert "SPARK_LOCAL_DIRS" not in program.program_environment()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/of/the/user")
    option("conf", "")
    program.write_properties()
    assert program.program_environment()["SPARK_LOCAL_DIRS"] == "/of/the/user"


# --- what the program tells


class Seen(Progress):
    def __init__(self):
        self.told = []

    def update(self, done, total=None, **facts):
        self.told.append((done, total, facts))

    def note(self, text):
        self.told.append(text)


def test_progress_of_the_program_is_passed_on_to_the_last_line(tmp_path):
    seen = Seen()
    listener = Listener(tmp_path / "messages", seen)
    with listener.listening():
        teller = Teller(tmp_path / "messages")
        teller.update(10, 20, items_per_second=3.5)
        teller.note("caf\u00e9")
    assert seen.told == [(10, 20, {"items_per_second": 3.5}), "caf\u00e9"]
    assert listener.failure() is None


@pytest.mark.parametrize(
    ("error", "same"),
    [
        (ArtifactError("model.h5: has changed"), ArtifactError("model.h5: has changed")),
        (OSError(28, "No space left on device", "/full"), OSError(28, "No space left on device", "/full")),
        (KeyError("x"), WorkerError("the program on Spark ended with KeyError: 'x'")),
        (BlockingIOError(11, "Resource temporarily unavailable"), OSError(11, "Resource temporarily unavailable")),
    ],
)
def test_an_error_of_the_program_is_raised_again(tmp_path, error, same):
    listener = Listener(tmp_path / "messages", Seen())
    with listener.listening():
        Teller(tmp_path / "messages").fail(error)
    found = listener.failure()
    assert (type(found), str(found)) == (type(same), str(same))


@pytest.mark.parametrize(
    ("error", "cause", "passes"),
    [
        (ArtifactError("cannot be read"), OSError(116, "Stale file handle", "/share"), True),
        (ArtifactError("cannot be read"), FileNotFoundError(2, "No such file or directory", "/share"), False),
        (ArtifactError("cannot be written"), RuntimeError("IO Error: No space left on device"), True),
        (RuntimeError("IO Error: No space left on device"), None, True),
        (KeyError("x"), None, False),
    ],
)
def test_what_may_pass_by_itself_still_may_when_the_program_has_told_it(tmp_path, error, cause, passes):
    error.__cause__ = cause
    listener = Listener(tmp_path / "messages", Seen())
    with listener.listening():
        Teller(tmp_path / "messages").fail(error)
    found = listener.failure()
    assert may_pass(found) is may_pass(error) is passes
    if isinstance(cause, OSError):
        assert (found.__cause__.errno, found.__cause__.filename) == (cause.errno, "/share")


class Tracker:
    """One stage of a job, with so many tasks at work each time it is asked for; then the session has ended."""

    def __init__(self, *n_active):
        self.n_active = list(n_active)

    def getActiveStageIds(self):  # noqa: N802 (Spark's name)
        return [7] if self.n_active[0] is not None else []

    def getStageInfo(self, stage):  # noqa: N802 (as above)
        return SimpleNamespace(numActiveTasks=self.n_active[0])


@pytest.mark.parametrize(
    ("n_active", "n_told"), [([0] * 30, 4), ([0, 1] * 15, 0), ([0, None] * 15, 0), ([0] * 10 + [1] + [0] * 10, 6)]
)
def test_tasks_that_wait_for_an_executor_are_told_ever_more_rarely(monkeypatch, n_active, n_told):
    from pipeline.spark import app

    tracker, seen, clock = Tracker(*n_active), Seen(), [0.0]

    def sleep(seconds):
        clock[0] += seconds
        tracker.n_active.pop(0)

    monkeypatch.setattr(app, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    app.tell_of_waiting(tracker, seen, patience=2.0)
    assert len(seen.told) == n_told
    assert all(text.startswith("Spark has run no task for ") for text in seen.told)
    if n_told:
        assert "for 2 s: it has no executor, or none with room; see [spark] master" in seen.told[0]


def test_the_program_ends_with_who_started_it(tmp_path):
    """It must not write when nobody waits for it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    job = {"parent": gone.pid, "messages": str(tmp_path / "messages"), "stage": "score"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    code = (
        "import sys, time, pipeline.spark.app as app; from pathlib import Path\n"
        "app.run = lambda *_: time.sleep(60)\n"
        "app.main(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "job.json")], timeout=50, check=False)
    assert done.returncode == 1
