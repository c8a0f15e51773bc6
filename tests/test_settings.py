"""Settings stand once: luigi.cfg, the command line and pipeline/config.py agree, and mistakes are told."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Settings, make_settings
from pipeline.config_catalog import SAMPLE
from pipeline.config_results import StorageSettings
from pipeline.errors import SettingsError
from tasks import config
from tasks.settings_file import render

PROJECT = Path(__file__).parents[1]
LUIGI_CFG = PROJECT / "luigi.cfg"

PRINT = """
import sys
from luigi.cmdline_parser import CmdlineParser
with CmdlineParser.global_instance(["--module", "tasks", "PlanRun", *sys.argv[1:]]):
    from tasks import config
    with config.mistakes_end_the_command():
        print(config.load().model_dump_json())
"""


def load(folder: Path, *flags: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Load the settings in a process of its own, as Luigi reads its files once, with this luigi.cfg."""
    (folder / "luigi.cfg").write_text(text)
    known = {name: value for name, value in os.environ.items() if not name.startswith("LUIGI_")}
    return subprocess.run(
        [sys.executable, "-c", PRINT, *flags],
        cwd=folder,
        env={**known, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
    )


def settings_of(done: subprocess.CompletedProcess[str]) -> Settings:
    assert done.returncode == 0, done.stderr
    return Settings.model_validate_json(done.stdout)


def test_luigi_cfg_is_what_the_settings_say():
    assert LUIGI_CFG.read_text() == render(), "write it anew: python -m tasks.settings_file > luigi.cfg"


def test_luigi_cfg_holds_every_setting_with_a_comment_and_its_default():
    parser = configparser.ConfigParser()
    parser.read(LUIGI_CFG)
    lines = LUIGI_CFG.read_text().splitlines()
    for section, model in Settings():
        assert list(parser[section]) == list(type(model).model_fields)
        for name, info in type(model).model_fields.items():
            assert info.description, f"[{section}] {name} says nothing"
            at = lines.index(f"# {info.description}")
            assert lines[at + 1].startswith(f"{name} =")
    read = make_settings({section: dict(parser[section]) for section in Settings.model_fields})
    items = PROJECT / read.catalog.items
    assert items == SAMPLE
    assert read.model_copy(update={"catalog": Settings().catalog}) == Settings()
    assert read.catalog.model_copy(update={"items": str(SAMPLE)}) == Settings().catalog


@pytest.mark.parametrize("section", list(Settings.model_fields))
def test_every_default_survives_the_way_through_text(section):
    model = getattr(Settings(), section)
    texts = {name: config.as_text(value) for name, value in model}
    assert getattr(make_settings({section: texts}), section) == model


def test_without_a_file_the_defaults_hold(tmp_path):
    assert settings_of(load(tmp_path)) == Settings()


def test_a_value_in_luigi_cfg_and_one_on_the_command_line(tmp_path):
    text = "[training]\nepochs = 9\nseed = 3\n[catalog]\nlevels = a, b\n"
    settings = settings_of(load(tmp_path, "--training-epochs", "5", text=text))
    assert (settings.training.epochs, settings.training.seed) == (5, 3)
    assert settings.catalog.levels == ("a", "b")


def test_a_file_elsewhere_is_read_after_luigi_cfg(tmp_path):
    other = tmp_path / "other.cfg"
    other.write_text("[training]\nepochs = 4\n")
    settings = settings_of(load(tmp_path, text="[training]\nepochs = 9\nseed = 3\n", LUIGI_CONFIG_PATH=str(other)))
    assert (settings.training.epochs, settings.training.seed) == (4, 3)


def test_a_percent_sign_is_doubled_and_an_empty_value_on_the_command_line_counts(tmp_path):
    settings = settings_of(load(tmp_path, "--catalog-title", "", text="[clean]\nsplit_salt = 50%%\n"))
    assert (settings.clean.split_salt, settings.catalog.title) == ("50%", "")


def test_a_switch_that_is_on_can_be_switched_off(tmp_path):
    settings = settings_of(load(tmp_path, "--clean-lowercase", "false"))
    assert settings.clean.lowercase is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 5", "[training] epoch = 5: no such setting; did you mean 'epochs'?"),
        ("[training]\nzzz = 5", "[training] zzz = 5: no such setting; there are engine, compile_mode, epochs"),
        (
            "[storage]\nroto = s3://key:wo/rd@bucket/x",
            "[storage] roto = s3://...@bucket/x: no such setting; did you mean",
        ),
        ("[trainning]\nepochs = 5", "[trainning] is a section neither of Tagladder nor of Luigi; did you mean 'train"),
        ("[training]\nepochs = five", "[training] epochs = five: Input should be a valid integer"),
        ("[retcode]\ntask_faild = 3", "[retcode] task_faild: Luigi has no such setting; did you mean 'task_failed'?"),
        ("[catalog]\nlevels = a/b, c", "levels: 'a/b' cannot be the name of a column in HDF5"),
        ("[catalog]\nlevels = Model, c", "levels: 'Model' is a column of the results"),
        ("[catalog]\nlevels = genre, Genre", "names a level twice; case does not count"),
        ("[catalog]\nsplit = genre", "split: 'genre' is a column of labels"),
        ("[training]\nlevel_weights = 0, 0, 0", "level_weights: all are 0"),
        ("[training]\nlearning_rate = inf", "[training] learning_rate = inf: Input should be a finite number"),
        ("[training]\nepochs = 0", "[training] epochs = 0: Input should be greater than or equal to 1"),
        ("[training]\nengine = torch", "[training] engine = torch: Input should be 'auto', 'theano' or 'pytensor'"),
        ("[features]\nblocks = tagz", "[features] blocks: 'tagz' is not one of tags, tag_words"),
        ("[scoring]\ntags = t.csv", "[scoring] tags: t.csv is given without items"),
        ("[network]\nexperts = 3\ntop_k = 4", "3 experts cannot have the top_k = 4 chosen of them"),
        (
            "[network]\nkind = single_shot\nlabel_feedback = true",
            "label_feedback: a single_shot network has no next step to feed",
        ),
        ("[clean]\nsplit_salt = 50%", "in luigi.cfg a % is written %%"),
        ("[clean]\nsplit_salt = ${NO_SUCH_NAME}", "nonexisting environment variable NO_SUCH_NAME"),
    ],
)
def test_a_mistake_ends_with_40_and_one_line(tmp_path, text, message):
    done = load(tmp_path, text=text)
    assert done.returncode == 40
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"network": {"norm": "batch"}, "training": {"batch_size": "1"}}, "norm: batch needs more than one item"),
        ({"network": {"label_feedback": "true"}, "catalog": {"levels": "genre"}}, "label_feedback: does nothing with"),
        ({"network": {"parent_mask": "true"}, "catalog": {"levels": "genre"}}, "parent_mask: does nothing with one"),
        ({"network": {"hidden": "1"}}, "[network] hidden = 1: Input should be greater than or equal to 2"),
        ({"training": {"warm_up": "500"}}, "[training] warm_up: 500 is more than all 60 epochs; it counts epochs"),
        ({"storage": {"roto": "s3://key:wo/rd@bucket/x"}}, "[storage] roto = s3://...@bucket/x: no such setting"),
        (
            {"storage": {"root": "s3://AKIA1:abc/def+GH@bucket/x"}},
            "[storage] root = s3://...@bucket/x: a URL with a pass",
        ),
        (
            {"catalog": {"items": "https://host/a.csv?X-Amz-Signature=ab"}},
            "X-Amz-Signature=...: a URL with a signature",
        ),
        (
            {"catalog": {"items": "az://box/a.csv?v=1&sig=ab"}},
            "[catalog] items = az://box/a.csv?v=1&sig=...: a URL with",
        ),
        ({"storage": {"root": "what?"}}, "[storage] root = what?: has ? in it, which is taken for a pattern; name"),
        ({"storage": {"root": "a[1]"}}, "[storage] root = a[1]: has [ in it, which is taken for a pattern; name"),
        (
            {"storage": {"root": "${HOME}/x"}},
            "[storage] root = ${HOME}/x: has ${ in it, which is taken for a variable",
        ),
        ({"storage": {"root": " \t"}}, "is blank; name a directory"),
        (
            {"storage": {"root": "a\nb"}},
            "[storage] root = 'a\\nb': has a line break or another control character in it",
        ),
        (
            {"storage": {"local": "a\x00b"}},
            "[storage] local = 'a\\x00b': has a line break or another control character",
        ),
        ({"training": {"refresh": "7"}}, "[training] refresh = 7: is none of changed, pinned and a number of days"),
        ({"training": {"refresh": "weekly"}}, "refresh = weekly: is none of changed, pinned and a number of days such"),
    ],
)
def test_settings_that_could_only_go_wrong_are_told_in_one_line(sections, message):
    with pytest.raises(SettingsError) as error:
        make_settings(sections)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_settings_file_that_is_not_there_is_refused(tmp_path):
    done = load(tmp_path, LUIGI_CONFIG_PATH="/no/such.cfg")
    assert done.returncode == 40
    assert "LUIGI_CONFIG_PATH = /no/such.cfg: no such file" in done.stderr


def test_sections_of_luigi_and_shared_values_are_no_mistake(tmp_path):
    text = "[DEFAULT]\ndata = /data\n[email]\nreceiver = me@example.org\n[catalog]\nitems = %(data)s/items.csv\n"
    assert settings_of(load(tmp_path, text=text)).catalog.items == "/data/items.csv"


def test_a_mistake_is_an_exception_where_luigi_is_called_by_code():
    with pytest.raises(SettingsError), config.mistakes_end_the_command():
        make_settings({"training": {"epochs": 0}})


@pytest.mark.parametrize(
    "flags", [["--training-epochs", "5"], ["--training-ep", "5"], ["--unlike-anything", "5"], ["ScoreCatalog"]]
)
def test_flags_that_are_right_or_foreign_pass(flags):
    config.check_flags(flags)


@pytest.mark.parametrize("root", ["file", "file/below/it"])
def test_a_root_that_is_a_file_or_lies_below_one_is_no_directory(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file is no directory; name another \[storage\] root$"):
        config.opened(StorageSettings(root=str(tmp_path / root)))
    assert config.opened(StorageSettings(root=str(tmp_path / "new"))) == tmp_path / "new"


@pytest.mark.parametrize("url", ["hdfs://namenode:8020/path@x", "hdfs://[::1]:8020/x"])
def test_a_port_is_no_password_and_an_address_no_pattern(url):
    assert StorageSettings(root=url).root == url
