from __future__ import annotations

import doctest
import pickle

import numpy as np
import pytest

import searchers.knob as knob_module
import searchers.space as space_module
from searchers.space import Knob, Limit, Space, paper_space

SMALL = Space.from_dict({"variant": ["lora", "dora"], "rank": [8, 2, 4], "alpha_ratio": 1.0, "dropout": [0.0, 0.1]})


def test_the_paper_space_is_the_published_table() -> None:
    space = paper_space()
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
    space = paper_space()
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

    with pytest.raises(ValueError, match=r"rank: .* is not finite"):
        Space.from_tune({"rank": tune.uniform(0, 1)})


# -- conditional knobs -------------------------------------------------------------------------------------------------

CONDITIONAL = Space.from_dict(
    {
        "batch": [1, 2],
        "variant": ["lora", "pissa", "vera"],
        "niter": [2, 4, 8],
        "rate": [1e-4, 1e-3],
        "init": ["a", "b"],
    },
    when={"niter": {"variant": ["pissa"]}, "init": {"variant": ["vera"], "batch": [2]}},
)


def test_a_conditional_space_counts_and_enumerates_each_configuration_once() -> None:
    # lora 2 x 2, pissa 2 x 3 x 2, vera 2 + 2 x 2.
    assert len(CONDITIONAL) == 4 + 12 + 6
    configs = [CONDITIONAL.decode(i) for i in range(len(CONDITIONAL))]
    assert [CONDITIONAL.encode(c) for c in configs] == list(range(22))
    assert len({CONDITIONAL.key(c) for c in configs}) == 22
    assert [set(c) for c in configs[:2]] == [{"batch", "variant", "rate"}] * 2
    assert all(("niter" in c) is (c["variant"] == "pissa") for c in configs)
    assert all(("init" in c) is (c["variant"] == "vera" and c["batch"] == 2) for c in configs)


def test_positions_that_differ_in_inactive_knobs_only_are_one_index() -> None:
    space = CONDITIONAL
    assert {space.index((1, 0, niter, 1, init)) for niter in range(3) for init in range(2)} == {
        space.encode({"batch": 2, "variant": "lora", "rate": 1e-3})
    }
    assert [space.index(space.positions(i)) for i in range(22)] == list(range(22))
    assert space.positions(space.encode({"batch": 2, "variant": "lora", "rate": 1e-3})) == (1, 0, 0, 1, 0)


def test_inactive_knobs_are_ignored_and_active_ones_are_needed() -> None:
    config = {"batch": 2, "variant": "lora", "rate": 1e-3}
    assert CONDITIONAL.encode({**config, "niter": 99}) == CONDITIONAL.encode(config)
    assert CONDITIONAL.key({**config, "niter": 99}) == CONDITIONAL.key(config)
    with pytest.raises(ValueError, match="niter: is missing"):
        CONDITIONAL.encode({**config, "variant": "pissa"})


def test_conditional_samples_and_neighbours_are_configurations() -> None:
    assert sorted(CONDITIONAL.sample(np.random.default_rng(0), 22)) == list(range(22))
    here = CONDITIONAL.encode({"batch": 1, "variant": "lora", "rate": 1e-4})
    assert [CONDITIONAL.decode(i) for i in CONDITIONAL.neighbours(here)] == [
        {"batch": 2, "variant": "lora", "rate": 1e-4},
        {"batch": 1, "variant": "pissa", "niter": 2, "rate": 1e-4},
        {"batch": 1, "variant": "vera", "rate": 1e-4},
        {"batch": 1, "variant": "lora", "rate": 1e-3},
    ]


def test_features_of_inactive_knobs_are_neutral() -> None:
    lora, pissa = (
        {"batch": 1, "variant": "lora", "rate": 1e-4},
        {"batch": 1, "variant": "pissa", "niter": 8, "rate": 1e-4},
    )
    x = CONDITIONAL.features([CONDITIONAL.encode(c) for c in (lora, pissa)])
    assert x.tolist() == [[0, 1, 0, 0, 0.5, 0, 0.5, 0.5], [0, 0, 1, 0, 1.0, 0, 0.5, 0.5]]


def test_digits_are_positions_with_inactive_knobs_marked() -> None:
    for space in (SMALL, CONDITIONAL):
        table = space.digits(range(len(space)))
        for i in range(len(space)):
            here = space.positions(i)
            assert table[i].tolist() == [p if on else -1 for p, on in zip(here, space.active(here), strict=True)]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"later": (1,)}, "a: when names 'later', which is no earlier knob"),
        ({"first": ()}, "a: when first has no values"),
        ({"first": (7,)}, "first: 7 is not in the search space"),
    ],
)
def test_wrong_conditions_are_refused_by_name(when: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Space([Knob("first", (1, 2)), Knob("a", (1, 2), when=when), Knob("later", (1, 2))])


def test_a_condition_on_a_conditional_knob_is_refused() -> None:
    knobs = {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    with pytest.raises(ValueError, match="c: when names 'b', which is conditional itself"):
        Space.from_dict(knobs, when={"b": {"a": [1]}, "c": {"b": [1]}})


def test_a_conditional_space_has_no_form_in_tune() -> None:
    with pytest.raises(ValueError, match="niter: Tune knows no conditional knobs"):
        CONDITIONAL.to_tune()


# -- values that exist only beside some of others ----------------------------------------------------------------------

LIMITED = Space.from_dict(
    {"variant": ["lora", "pissa", "melora"], "rank": [2, 8, 256], "minis": [2, 4], "rate": [1e-4, 1e-3]},
    when={"minis": {"variant": ["melora"]}},
    limits=[
        Limit("rank", (2, 8), {"variant": ["pissa"]}),
        Limit("minis", (4,), {"variant": ["melora"], "rank": [256]}),
        Limit("rate", (1e-3,), {"minis": [4]}),
    ],
)


def test_a_limited_space_enumerates_exactly_what_can_be_had() -> None:
    configs = [LIMITED.decode(i) for i in range(len(LIMITED))]
    whole = Space.from_dict(
        {"variant": ["lora", "pissa", "melora"], "rank": [2, 8, 256], "minis": [2, 4], "rate": [1e-4, 1e-3]},
        when={"minis": {"variant": ["melora"]}},
    )
    wanted = [
        c
        for c in map(whole.decode, range(len(whole)))
        if not (c["variant"] == "pissa" and c["rank"] == 256)
        and not (c["variant"] == "melora" and c["rank"] == 256 and c["minis"] == 2)
        and not (c.get("minis") == 4 and c["rate"] == 1e-4)
    ]
    assert len(LIMITED) == len(wanted) < len(whole)
    assert sorted(map(repr, configs)) == sorted(map(repr, wanted))
    assert [LIMITED.encode(c) for c in configs] == list(range(len(LIMITED)))
    assert [LIMITED.index(LIMITED.positions(i)) for i in range(len(LIMITED))] == list(range(len(LIMITED)))


def test_a_value_that_cannot_be_had_beside_the_others_is_refused_by_name() -> None:
    config = {"variant": "pissa", "rank": 256, "rate": 1e-3}
    with pytest.raises(ValueError, match="rank: 256 cannot be had with these other values; choose one of 2, 8"):
        LIMITED.encode(config)
    assert config not in LIMITED
    assert {**config, "variant": "lora"} in LIMITED


def test_positions_of_what_cannot_be_had_stand_for_the_nearest_that_can() -> None:
    assert LIMITED.decode(LIMITED.index((1, 2, 0, 0))) == {"variant": "pissa", "rank": 8, "rate": 1e-4}
    assert LIMITED.decode(LIMITED.index((2, 2, 0, 0))) == {"variant": "melora", "rank": 256, "minis": 4, "rate": 1e-3}


def test_limited_neighbours_and_digits_are_configurations() -> None:
    table = LIMITED.digits(range(len(LIMITED)))
    for i in range(len(LIMITED)):
        here = LIMITED.positions(i)
        assert table[i].tolist() == [p if on else -1 for p, on in zip(here, LIMITED.active(here), strict=True)]
        assert i not in LIMITED.neighbours(i)
    near = LIMITED.neighbours(LIMITED.encode({"variant": "lora", "rank": 256, "rate": 1e-4}))
    assert {"variant": "pissa", "rank": 8, "rate": 1e-4} in [LIMITED.decode(i) for i in near]


def test_a_limited_space_pickles_and_differs_from_the_whole_one() -> None:
    again = pickle.loads(pickle.dumps(LIMITED))
    assert again == LIMITED and hash(again) == hash(LIMITED)
    assert [again.decode(i) for i in range(len(again))] == [LIMITED.decode(i) for i in range(len(LIMITED))]
    assert Space(LIMITED.knobs) != LIMITED


def test_limits_that_leave_nothing_or_name_no_earlier_knob_are_refused() -> None:
    knobs = [Knob("a", (1, 2)), Knob("b", (1, 2))]
    with pytest.raises(ValueError, match="b: no value is left with a = 2"):
        Space(knobs, [Limit("b", (1,), {"a": [2]}), Limit("b", (2,), {"a": [2]})])
    with pytest.raises(ValueError, match="a: a limit names 'b', which is no earlier knob"):
        Space(knobs, [Limit("a", (1,), {"b": [2]})])
    with pytest.raises(ValueError, match="b: 7 is not in the search space"):
        Space(knobs, [Limit("b", (7,), {"a": [2]})])
    with pytest.raises(ValueError, match="b: Tune knows no values that depend on others"):
        Space(knobs, [Limit("b", (1,), {"a": [2]})]).to_tune()


@pytest.mark.parametrize("name", ["Knob", "Limit", "Space", "paper_space"])
def test_examples_of_a_public_name_hold(name: str) -> None:
    scope = vars(space_module) | vars(knob_module)
    tests = [
        test for test in doctest.DocTestFinder().find(scope[name], name, module=False, globs=scope) if test.examples
    ]
    assert tests, f"{name} has no example"
    assert [doctest.DocTestRunner().run(test).failed for test in tests] == [0] * len(tests)
