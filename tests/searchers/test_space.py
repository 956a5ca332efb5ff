from __future__ import annotations

import numpy as np
import pytest

from searchers.space import Knob, Space, default_space

SMALL = Space.from_dict({"variant": ["lora", "dora"], "rank": [8, 2, 4], "alpha_ratio": 1.0, "dropout": [0.0, 0.1]})


def test_default_space_is_the_published_table() -> None:
    space = default_space()
    assert len(space) == 45_360
    assert space.names == ("rank", "alpha_ratio", "batch_size", "learning_rate", "dropout")
    assert [len(k) for k in space.knobs] == [9, 9, 8, 10, 7]
    assert space.decode(0) == {
        "rank": 1, "alpha_ratio": 0.5, "batch_size": 2, "learning_rate": 1e-6, "dropout": 0.0
    }  # fmt: skip
    assert space.decode(45_359)["alpha_ratio"] == 128


def test_decode_and_encode_are_inverse_over_the_whole_space() -> None:
    assert [SMALL.encode(SMALL.decode(i)) for i in range(len(SMALL))] == list(range(12))


def test_ordinal_values_are_sorted_and_categorical_values_are_not() -> None:
    assert SMALL.knobs[1].values == (2, 4, 8)
    assert SMALL.knobs[0].values == ("lora", "dora")


def test_encode_names_the_knob_and_the_value() -> None:
    with pytest.raises(ValueError, match=r"rank: 3 is not in the search space; choose one of 2, 4, 8"):
        SMALL.encode({"variant": "lora", "rank": 3, "dropout": 0.0})
    with pytest.raises(ValueError, match="rank: is missing"):
        SMALL.encode({"variant": "lora", "dropout": 0.0})
    assert {"variant": "lora", "rank": 3, "dropout": 0.0} not in SMALL
    assert "rank" not in SMALL


def test_numbers_are_the_same_in_every_spelling() -> None:
    config = SMALL.decode(5)
    other = dict(reversed(list(config.items()))) | {"rank": np.float64(config["rank"]), "unknown": 1}
    assert SMALL.encode(other) == 5
    assert SMALL.key(other) == SMALL.key(config)
    assert len(SMALL.key(config)) == 12


def test_keys_differ_between_configurations_and_last_over_versions() -> None:
    assert len({SMALL.key(SMALL.decode(i)) for i in range(12)}) == 12
    assert SMALL.key(SMALL.decode(0)) == "0f6a56a63d03"


def test_true_is_not_one() -> None:
    space = Space.from_dict({"bias": [True, False], "warmup": [0, 1]})
    assert space.knobs[0].kind == "categorical"
    with pytest.raises(ValueError, match="bias: 1 is not"):
        space.encode({"bias": 1, "warmup": 1})


@pytest.mark.parametrize("size", [1, 5, 11, 12, 40])
def test_sample_gives_different_free_indices(size: int) -> None:
    drawn = SMALL.sample(np.random.default_rng(0), size, exclude={0})
    assert len(drawn) == len(set(drawn)) == min(size, 11)
    assert 0 not in drawn


def test_sample_depends_on_the_generator_alone_and_covers_large_spaces() -> None:
    space = default_space()
    first = space.sample(np.random.default_rng(1), 100, exclude={3})
    assert first == space.sample(np.random.default_rng(1), 100, exclude=[3])
    assert len(set(first)) == 100
    huge = Space.from_dict({f"k{i}": list(range(10)) for i in range(12)})
    assert len(set(huge.sample(np.random.default_rng(1), 20))) == 20


def test_features_are_in_the_unit_cube_with_log_scales_and_one_hot() -> None:
    x = SMALL.features(range(12))
    assert x.shape == (12, 5)
    assert x.min() == 0.0 and x.max() == 1.0
    assert x[SMALL.encode({"variant": "dora", "rank": 4, "dropout": 0.1})] == pytest.approx([0, 1, 0.5, 0, 1])
    assert SMALL.features([]).shape == (0, 5)


def test_neighbours_differ_in_one_knob_by_one_step() -> None:
    here = SMALL.encode({"variant": "lora", "rank": 4, "dropout": 0.0})
    found = [SMALL.decode(i) for i in SMALL.neighbours(here)]
    assert [tuple(c[k] for k in ("variant", "rank", "dropout")) for c in found] == [
        ("dora", 4, 0.0), ("lora", 2, 0.0), ("lora", 8, 0.0), ("lora", 4, 0.1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([1, 2, 4, 8], True),
        ([1e-5, 1e-4, 1e-3], True),
        ([0.0, 0.1], False),
        ([1, 2, 3, 4], False),
        ([1e-5, 1e-3], True),
    ],
)
def test_log_scale_is_inferred_from_the_spacing(values: list[float], log: bool) -> None:
    assert Space.from_dict({"x": values}).knobs[0].log is log


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Knob("rank", ()), "rank: has no values"),
        (lambda: Knob("rank", (8, 8.0)), "rank: value 8.0 is given twice"),
        (lambda: Knob("rank", ("a",)), "rank: 'a' is not a finite number"),
        (lambda: Knob("rank", (0, 1), log=True), "rank: 0 is not positive"),
        (lambda: Knob("rank", (1,), "other"), "rank: kind 'other' is unknown"),  # type: ignore[arg-type]
        (lambda: Space([]), "space: has no knobs"),
        (lambda: Space([Knob("a", (1,)), Knob("a", (2,))]), "a: is given twice"),
    ],
)
def test_wrong_definitions_are_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_tune_and_back() -> None:
    again = Space.from_tune(SMALL.to_tune())
    assert again == SMALL
    from ray import tune

    with pytest.raises(ValueError, match="rank: .* is not finite"):
        Space.from_tune({"rank": tune.uniform(0, 1)})
