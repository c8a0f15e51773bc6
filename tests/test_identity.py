"""What changes a fingerprint, and what does not."""

import json
from pathlib import Path

import pytest
import stage_code

from pipeline.config import Settings, make_settings
from pipeline.digests import sha256_of
from pipeline.errors import SettingsError
from pipeline.identity import STAGE_VERSIONS, Identity, engine_name, identify, with_last_accepted
from pipeline.inputs import expand
from pipeline.members import of_member
from pipeline.refresh import Choice

STAGES = ["clean", "features", "train", "export", "score"]


def digest(path: str) -> str | None:
    return sha256_of(path) if Path(path).is_file() else None


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("item_id,tags\n1,a\n")
    return path


def identity(items: Path, **sections: dict[str, object]) -> Identity:
    catalog = {"items": str(items), **sections.pop("catalog", {})}
    return identify(make_settings({"catalog": catalog, **sections}), digest)


def changed(one: Identity, other: Identity) -> list[str]:
    return [stage for stage in STAGES if one.fingerprints[stage] != other.fingerprints[stage]]


@pytest.mark.parametrize(
    ("section", "name", "value", "stages"),
    [
        ("catalog", "title", "name", STAGES),
        ("clean", "lowercase", False, STAGES),
        ("features", "max_tags", 8, STAGES[1:]),
        ("features", "max_items", 8, STAGES[1:]),
        ("network", "hidden", 8, STAGES[2:]),
        ("training", "epochs", 5, STAGES[2:]),
        ("training", "compile_mode", "fast_compile", STAGES[2:]),
        ("training", "prefetch", 0, []),
        ("export", "storage", "float16", STAGES[3:]),
        ("scoring", "n_best", 1, ["score"]),
        ("storage", "root", "elsewhere", []),
        ("storage", "keep_runs", 5, []),
        ("monitoring", "log", "json", []),
    ],
)
def test_a_setting_changes_the_stages_from_its_own_on(items, section, name, value, stages):
    assert changed(identity(items), identity(items, **{section: {name: value}})) == stages


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_version_of_a_stage_changes_it_and_what_follows_and_no_other(items, monkeypatch, stage):
    before = identity(items)
    monkeypatch.setitem(STAGE_VERSIONS, stage, STAGE_VERSIONS[stage] + 1)
    assert changed(before, identity(items)) == STAGES[STAGES.index(stage) :]


@pytest.mark.parametrize("stage", STAGES)
def test_items_to_score_are_cleaned_anew_by_a_new_version_of_stage_1_alone(items, monkeypatch, stage):
    other = items.with_name("other.csv")
    other.write_text("item_id,tags\n2,b\n")
    before = identity(items, scoring={"items": str(other)})
    monkeypatch.setitem(STAGE_VERSIONS, stage, STAGE_VERSIONS[stage] + 1)
    after = identity(items, scoring={"items": str(other)})
    assert (before.fingerprints["scored"] != after.fingerprints["scored"]) == (stage == "clean")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the values below are of no setting's type
def test_every_setting_but_paths_speed_and_storage_changes_something(items):
    plain = identity(items, scoring={"items": str(items)})
    without_effect = []
    for section, model in Settings():
        for name, value in model:
            other = model.model_copy(update={name: value + 1 if type(value) is int else f"{value}!"})
            settings = plain.settings.model_copy(update={section: other})
            if not changed(plain, identify(settings, lambda path: digest(str(items)))):
                without_effect.append(f"{section}.{name}")
        drift = ["max_unseen_share", "max_tag_distance", "max_label_distance", "max_row_change", "accept_drift"]
    assert without_effect == [
        *(f"clean.{name}" for name in drift),
        "features.engine",
        "training.refresh",
        "training.prefetch",
        *(f"gate.{name}" for name in type(Settings().gate).model_fields),
        *(f"report.{name}" for name in type(Settings().report).model_fields),
        *(f"storage.{name}" for name in type(Settings().storage).model_fields),
        *(f"monitoring.{name}" for name in type(Settings().monitoring).model_fields),
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_invalidated_gets_another_fingerprint_and_so_does_what_follows(items, stage):
    settings = settings_of(items)
    before = identify(settings, digest)
    again = identify(settings, digest, invalidated={before.fingerprints[stage]})
    assert changed(before, again) == STAGES[STAGES.index(stage) :]
    third = identify(settings, digest, invalidated={before.fingerprints[stage], again.fingerprints[stage]})
    assert third.fingerprints[stage] not in (before.fingerprints[stage], again.fingerprints[stage])
    assert again.fingerprints["plan"] == before.fingerprints["plan"]  # a repetition finds the same yesterday
    assert again.basis == before.basis


def test_a_byte_of_an_input_changes_all(items):
    before = identity(items)
    items.write_text("item_id,tags\n1,b\n")
    assert changed(before, identity(items)) == STAGES


def test_the_same_bytes_elsewhere_change_nothing_but_another_kind_of_name_does(items):
    before = identity(items)
    copy = items.with_name("copy.CSV")
    copy.write_bytes(items.read_bytes())
    assert changed(before, identity(copy)) == []
    table = items.with_name("copy.tsv")
    table.write_bytes(items.read_bytes())
    assert changed(before, identity(table)) == STAGES


def test_the_same_file_as_tags_is_not_the_same_as_labels(items):
    tags = identity(items, catalog={"tags": str(items)})
    labels = identity(items, catalog={"labels": str(items)})
    assert changed(tags, labels) == STAGES


def test_another_catalog_to_score_changes_stage_5_only(items):
    other = items.with_name("other.csv")
    other.write_text("item_id,tags\n2,b\n")
    plain, scored = identity(items), identity(items, scoring={"items": str(other)})
    assert changed(plain, scored) == ["score"]
    assert scored.fingerprints["scored"] != scored.fingerprints["clean"]
    other.write_text("item_id,tags\n3,b\n")
    assert changed(scored, identity(items, scoring={"items": str(other)})) == ["score"]


def settings_of(items: Path, **sections: dict[str, object]) -> Settings:
    return make_settings({"catalog": {"items": str(items)}, **sections})


def test_the_model_to_start_from_changes_stages_3_to_5_and_not_what_they_are_named_without_it(items):
    plain, warm = (identify(settings_of(items), digest, choice) for choice in (Choice(), Choice(start="m0")))
    assert changed(plain, warm) == STAGES[2:]
    assert warm.basis == plain.basis == plain.fingerprints["export"]


def test_several_files_to_start_from_are_refused(items, tmp_path):
    for name in ("one.h5", "two.h5"):
        (tmp_path / name).write_text(name)
    with pytest.raises(SettingsError, match=r"\[training\] warm_start = .*: 2 files; name one"):
        identity(items, training={"warm_start": str(tmp_path / "*.h5")})


def test_a_model_that_is_used_again_is_the_export_and_has_no_stages_before_it(items):
    again = identify(settings_of(items), digest, Choice(model="m1"))
    assert again.fingerprints["export"] == "m1"
    assert again.fingerprints["clean"] == again.fingerprints["scored"] != identity(items).fingerprints["clean"]
    with pytest.raises(SettingsError, match=r"uses a published model again and has no stage 'train'"):
        again.of("train")


def test_a_member_is_the_same_in_an_ensemble_of_any_size(items):
    one, two, three = (identity(items, training={"members": n}).fingerprints for n in (1, 2, 3))
    assert one["train"] == two["train"] == three["train"]
    assert two["train_2"] == three["train_2"]
    assert len({three["train"], three["train_2"], three["train_3"]}) == 3
    assert len({one["export"], two["export"], three["export"]}) == 3


def test_a_member_that_holds_out_a_fold_is_another_one_in_an_ensemble_of_another_size(items):
    two, three = (
        identity(items, clean={"validation_share": 0}, training={"members": n, "cross_fit": True}).fingerprints
        for n in (2, 3)
    )
    assert len({two["train"], three["train"], two["train_2"], three["train_2"], three["train_3"]}) == 5


def test_a_second_member_that_starts_from_a_model_is_not_a_first_one_of_its_seed(items):
    second = of_member(settings_of(items, training={"members": 2}), 2).training.seed
    for choice, the_same in ((Choice(), True), (Choice(start="m0"), False)):
        two = identify(settings_of(items, training={"members": 2}), digest, choice).fingerprints["train_2"]
        alone = identify(settings_of(items, training={"seed": second}), digest, choice).fingerprints["train"]
        assert (two == alone) == the_same


def test_neighbouring_seeds_share_no_member(items):
    seeds = [of_member(settings_of(items, training={"seed": seed}), n) for seed in (7, 8, 9) for n in (1, 2, 3)]
    assert len({settings.training.seed for settings in seeds}) == 9


def test_the_recipe_is_of_settings_and_rules_not_of_items(items, tmp_path):
    before = identity(items).recipe
    assert identity(items, training={"members": 2}).recipe != before
    assert identity(items, training={"warm_start": "last"}).recipe != before
    assert identity(items, scoring={"n_best": 1}, training={"refresh": "7 days"}).recipe == before
    aliases = tmp_path / "aliases.txt"
    aliases.write_text("a -> b")
    assert identity(items, clean={"aliases": str(aliases)}).recipe != before
    items.write_text("item_id,tags\n1,b\n")
    assert identity(items).recipe == before


def test_a_change_of_any_input_or_setting_makes_another_plan(items):
    other = items.with_name("other.csv")
    other.write_text("item_id,tags\n2,b\n")
    plans = {
        identity(items).fingerprints["plan"],
        identity(items, training={"seed": 8}).fingerprints["plan"],
        identity(items, scoring={"items": str(other)}).fingerprints["plan"],
    }
    assert len(plans) == 3


def test_an_absent_file_has_an_identity_of_its_own(tmp_path, items):
    absent = identity(tmp_path / "absent.csv")
    assert absent.inputs["training"][0].digest is None
    assert changed(absent, identity(items)) == STAGES
    assert absent.expected("training") == {str(tmp_path / "absent.csv"): ""}


def test_a_glob_is_the_files_it_matches_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    assert expand(str(tmp_path / "*.csv")) == (str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    assert expand(str(tmp_path / "*.json")) == (str(tmp_path / "*.json"),)


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    path = tmp_path / "items[1].csv"
    path.write_text("x")
    assert expand(str(path)) == (str(path),)


@pytest.mark.parametrize(("installed", "engine"), [(["theano", "pytensor"], "theano"), (["pytensor"], "pytensor")])
def test_auto_is_the_engine_that_is_installed(items, monkeypatch, installed, engine):
    monkeypatch.setattr("pipeline.identity.find_spec", lambda name: name if name in installed else None)
    found = identity(items)
    assert found.settings.training.engine == engine
    assert engine_name(Settings().training) == engine
    other = "theano" if engine == "pytensor" else "pytensor"
    assert changed(found, identity(items, training={"engine": other})) == STAGES[2:]


def test_code_of_a_stage_does_not_change_without_a_new_version_number():
    told = json.loads(stage_code.STORED.read_text())
    assert told == stage_code.current(), (
        "the code of a stage changed: raise its number in pipeline/identity.py if its results change too, then run"
        " python tests/stage_code.py (it refuses without a new number; --same-results if they are the same)"
    )


def test_every_module_belongs_to_a_stage_or_bears_on_none():
    placed = {module for modules in stage_code.modules_of_stages().values() for module in modules}
    there = {stage_code.name_of(path) for path in stage_code.PIPELINE.rglob("*.py")}
    assert there - placed == stage_code.WITHOUT_EFFECT


def test_comments_and_docstrings_are_no_code(tmp_path):
    one, other, third = (tmp_path / name for name in ("one.py", "other.py", "third.py"))
    one.write_text('"""One."""\n\ndef f(x):\n    """Say."""\n    return x + 1  # one\n')
    other.write_text("def f(x):\n    return (x + 1)\n")
    third.write_text("def f(x):\n    return x + 2\n")
    assert stage_code.digest([one]) == stage_code.digest([other]) != stage_code.digest([third])


def test_what_comes_to_a_directory_meanwhile_is_not_scored_by_the_last_accepted_model(items):
    planned = identity(items.parent)
    (items.parent / "later.csv").write_text("item_id,tags\n2,b\n")
    other = with_last_accepted(planned, "0" * 64)
    assert other.inputs == planned.inputs and other.of("export") == "0" * 64
    assert identity(items.parent).inputs != planned.inputs
