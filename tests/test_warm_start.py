"""Training begins with the weights of an earlier model, whose tags, features and classes are others."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from small_model import TAGS, TAXONOMY, features, make_model
from test_fitting import Notes
from test_frontend import LEVELS, PATHS, ROWS, quick

from pipeline import parameters, train_model, training
from pipeline.ensemble import Ensemble
from pipeline.errors import SettingsError, TrainingError
from pipeline.features import FeatureTransform
from pipeline.network import FeedbackNetwork, NetworkConfig
from pipeline.taxonomy import Taxonomy
from pipeline.warm_start import Meaning, feature_identities, moved, warm_start

# Every class of TAXONOMY but ("Comedy", "-"), in other places; and new ones.
GROWN = Taxonomy.of(
    TAXONOMY.levels,
    [("Action", "War"), *(path for path in TAXONOMY.classes[1] if path[0] != "Comedy"), ("Horror", "Aliens")],
)
PARTS = [
    {},
    {"kind": "single_shot", "norm": "batch", "wide": True},
    {"label_feedback": True, "experts": 3, "experts_at": "outputs"},
    {"experts": 3, "norm": "none"},
]


def drawn(transform, taxonomy, *, seed, **parts):
    """Return a network for these features and classes, with every parameter drawn."""
    sizes = {"n_vocabulary": transform.n_vocabulary, "n_features": transform.n_features, "n_dense": transform.n_dense}
    config = NetworkConfig(**sizes, hidden=8, n_classes=taxonomy.n_classes, **parts)
    rng = np.random.default_rng(seed)
    network = FeedbackNetwork.initialise(config, rng)
    return parameters.map_parameters(network, lambda _, value: rng.standard_normal(value.shape, np.float32))


def grown_transform():
    """Return a transform that has lost a tag and learned two, so that ids and columns are others."""
    rows = [[*TAGS[1:], "robots"], ["robots", "alien", "satire"], ["robots"]]
    return FeatureTransform.fit(pa.table({"tags": pa.array([sorted(row) for row in rows])}), features())


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(parts) or "plain")
def test_what_both_know_keeps_its_weights_to_the_bit_and_the_rest_is_fresh(parts):
    model = make_model()
    old = drawn(model.transform, TAXONOMY, seed=1, **parts)
    transform = grown_transform()
    first = drawn(transform, GROWN, seed=2, **parts)
    notes = Notes()
    found = warm_start(first, replace(model, network=old), transform=transform, taxonomy=GROWN, progress=notes)
    before, fresh, now = (parameters.flatten(network) for network in (old, first, found))
    tags = {name: row for row, name in enumerate(model.transform.vocabulary.terms.to_pylist(), start=1)}
    for row, tag in enumerate(transform.vocabulary.terms.to_pylist(), start=1):
        expected = before["tags.weight"][tags[tag]] if tag in tags else fresh["tags.weight"][row]
        np.testing.assert_array_equal(now["tags.weight"][row], expected, err_msg=tag)
    assert set(transform.vocabulary.terms.to_pylist()) - set(tags) == {"robots", "alien"}
    n_experts = found.heads[0].weight.shape[1] // len(GROWN.classes[0])
    for level, (classes, old_classes) in enumerate(zip(GROWN.classes, TAXONOMY.classes, strict=True)):
        for expert in range(n_experts):
            for place, path in enumerate(classes):
                column = expert * len(classes) + place
                weight, bias = now[f"heads.{level}.weight"][:, column], now[f"heads.{level}.bias"][column]
                there, at = (fresh, column)
                if path in old_classes:
                    there, at = before, expert * len(old_classes) + old_classes.index(path)
                np.testing.assert_array_equal(weight, there[f"heads.{level}.weight"][:, at], err_msg=str(path))
                assert bias == there[f"heads.{level}.bias"][at]
    by_name = ("tags.", "features.", "heads.", "labels.", "wide.")
    for name in (name for name in now if not name.startswith(by_name)):
        np.testing.assert_array_equal(now[name], before[name], err_msg=name)
    assert notes.notes[0].startswith("starts from ")
    assert notes.notes[0].endswith(" weights of f00d")


def test_the_wide_path_is_matched_by_feature_and_class():
    model, transform = make_model(), grown_transform()
    old, first = (drawn(t, y, seed=s, wide=True) for t, y, s in ((model.transform, TAXONOMY, 1), (transform, GROWN, 2)))
    found = warm_start(first, replace(model, network=old), transform=transform, taxonomy=GROWN)
    columns = [(level, path) for level in range(2) for path in GROWN.classes[level]]
    old_columns = [(level, path) for level in range(2) for path in TAXONOMY.classes[level]]
    names, old_names = feature_identities(transform), feature_identities(model.transform)
    assert 64 < len(set(names) & set(old_names)) < len(names)
    for row, name in enumerate(names):
        for column, path in enumerate(columns):
            known = name in old_names and path in old_columns
            expected = old.wide.weight[old_names.index(name), old_columns.index(path)] if known else None
            assert found.wide.weight[row, column] == (expected if known else first.wide.weight[row, column])


@pytest.mark.parametrize("parts", [{}, {"label_feedback": True}], ids=["plain", "label-feedback"])
def test_a_level_more_starts_afresh_below_levels_that_keep_their_weights(parts):
    model, transform = make_model(), make_model().transform
    deeper = Taxonomy.of(
        ("genre", "theme", "mood"), [(*path, mood) for path in TAXONOMY.classes[1] if "-" not in path for mood in "ab"]
    )
    old, first = (drawn(transform, y, seed=s, **parts) for y, s in ((TAXONOMY, 1), (deeper, 2)))
    found = warm_start(first, replace(model, network=old), transform=transform, taxonomy=deeper)
    np.testing.assert_array_equal(found.tags.weight, old.tags.weight)
    np.testing.assert_array_equal(found.heads[2].weight, first.heads[2].weight)
    war = deeper.classes[1].index(("Drama", "War")), TAXONOMY.classes[1].index(("Drama", "War"))
    np.testing.assert_array_equal(found.heads[1].weight[:, war[0]], old.heads[1].weight[:, war[1]])


def test_a_hash_bucket_keeps_its_weights_only_under_the_same_hash():
    model = make_model()
    names, same = feature_identities(model.transform), feature_identities(grown_transform())
    buckets = [name for name in names if "#" in name]
    assert len(buckets) == 64
    assert set(buckets) < set(same)
    settings = features()
    longer = settings.features.model_copy(update={"chars_max": settings.features.chars_max + 1})
    assert not set(buckets) & set(feature_identities(replace(model.transform, settings=longer)))


def test_the_same_name_under_another_parent_is_another_class():
    meaning = Meaning.of(make_model().transform, TAXONOMY)
    assert ("Horror", "Zombies") in meaning.classes[1]
    assert ("Drama", "Zombies") in meaning.classes[1]
    assert meaning.tags[0] is None


def test_a_part_that_the_earlier_network_has_not_starts_afresh_and_is_told():
    model, transform = make_model(), grown_transform()
    first, notes = drawn(transform, GROWN, seed=2, norm="batch", wide=True), Notes()
    found = warm_start(first, model, transform=transform, taxonomy=GROWN, progress=notes)
    np.testing.assert_array_equal(found.wide.weight, first.wide.weight)
    assert "wide.weight" in notes.notes[0]
    assert notes.notes[0].endswith("start afresh")


def test_another_size_of_the_hidden_layer_is_an_error():
    model = make_model()
    config = replace(model.network.config, hidden=9)
    network = FeedbackNetwork.initialise(config, np.random.default_rng(0))
    with pytest.raises(TrainingError, match=r"8 hidden units, the network 9; set \[network\] hidden = 8"):
        warm_start(network, model, transform=model.transform, taxonomy=TAXONOMY)


def test_a_member_starts_from_its_own_and_from_the_first_again_where_there_are_fewer():
    model = make_model()
    members = tuple(drawn(model.transform, TAXONOMY, seed=seed) for seed in (1, 2))
    first = drawn(model.transform, TAXONOMY, seed=3)
    for number, expected in ((1, members[0]), (2, members[1]), (3, members[0])):
        found = warm_start(
            first,
            replace(model, network=Ensemble(members)),
            transform=model.transform,
            taxonomy=TAXONOMY,
            member=number,
        )
        for name, value in parameters.flatten(found).items():
            np.testing.assert_array_equal(value, parameters.flatten(expected)[name], err_msg=name)


def test_axes_of_other_lengths_without_names_share_nothing():
    first = np.zeros((2, 3))
    assert moved(first, np.ones((2, 4)), None, None) == (first, 0)
    assert moved(first, np.ones(3), None, None) == (first, 0)
    assert moved(np.zeros((1, 1)), np.ones((1, 1)), (("new",), None), (("old",), None))[1] == 0


def test_training_goes_on_from_a_model_with_more_tags_and_classes(monkeypatch):
    model = train_model(ROWS, PATHS, levels=LEVELS, settings=quick(epochs=8))
    starts = []

    def watched(network, *arguments, **options):
        starts.append(network)
        return fit(network, *arguments, **options)

    fit = training.fit
    monkeypatch.setattr(training, "fit", watched)
    rows, paths = [*ROWS, *[["ghosts", "mall"]] * 12], [*PATHS, *[("Horror", "Ghosts")] * 12]
    grown = train_model(rows, paths, levels=LEVELS, settings=quick(epochs=1), start=model)
    (start,) = starts
    assert ("Horror", "Ghosts") in grown.taxonomy.classes[1]
    for tag in ("zombies", "mall", "laughs"):
        row, old = (m.transform.vocabulary.ids(pa.array([tag]))[0] for m in (grown, model))
        np.testing.assert_array_equal(start.tags.weight[row], model.network.tags.weight[old])
    place, old = (m.taxonomy.classes[1].index(("Horror", "Zombies")) for m in (grown, model))
    np.testing.assert_array_equal(start.heads[1].weight[:, place], model.network.heads[1].weight[:, old])
    afresh = train_model(rows, paths, levels=LEVELS, settings=quick(epochs=1))
    # What the earlier model knew is known after one epoch; afresh it takes longer.
    chances = [m.predict([["zombies"]])[0].level_probabilities["genre"] for m in (grown, afresh)]
    assert chances[0] > chances[1]


def test_without_a_published_model_last_is_an_error_of_the_library():
    with pytest.raises(SettingsError, match="warm_start = last: here no model is published; give it as start=model"):
        train_model(ROWS, PATHS, levels=LEVELS, settings=quick(warm_start="last"))
