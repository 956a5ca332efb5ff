"""Every mistake in a spec is one line that names the field, the value and what is allowed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from raylora.errors import UserError
from raylora.run.checks import load_checked
from raylora.spec import Spec, from_dict, load
from raylora.spec.model import TrainSpec
from trainables.schedules import SCHEDULES

MINIMAL = {"model": "smollm2-135m", "task": {"name": "reasoning_gym/chain_sum"}}


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    """A minimal spec that stores its runs in a temporary folder."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "storage_path": str(tmp_path / "runs")}))
    return path


def refusal(path: Path, *overrides: str, check: bool = False) -> str:
    """The one line that a spec with these overrides is refused with."""
    with pytest.raises(UserError) as caught:
        (load_checked if check else load)(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_minimal_spec_gets_documented_defaults(spec_file: Path) -> None:
    spec = load(spec_file)
    assert spec.search.searcher == "language" and spec.search.trials == 30 and spec.search.llm == "smollm2-135m"
    assert spec.train.budget(640) == 640 and spec.final.budget(100) == 100
    assert spec.mode == "hosted" and spec.reports == 1
    assert spec.space_size == 54_432


def test_overrides_are_yaml_and_the_last_one_wins(spec_file: Path) -> None:
    spec = load(
        spec_file,
        [
            "search.trials=2",
            "search.trials=3",
            "space.rank=[4,8]",
            "space.learning_rate=1e-3",
            "task.system=''",
        ],
    )
    assert spec.search.trials == 3
    assert spec.space.rank == [4, 8]
    assert spec.space.learning_rate == [1e-3]
    assert spec.task.system == ""


def test_written_yaml_reads_back_equal(spec_file: Path, tmp_path: Path) -> None:
    overrides = [
        "train.samples=384",
        "space.alpha=[8,16]",
        "space.extra={beta: [1, 2.5, x]}",
        "search.scheduler=asha",
    ]
    spec = load(spec_file, overrides)
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml())
    assert load(again) == spec
    assert from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_written_yaml_takes_either_budget_as_override(spec_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(load(spec_file).to_yaml())
    assert load(again, ["train.samples=7"]).train.budget(100) == 7
    assert load(again, ["train.epochs=0.5"]).train.budget(100) == 50


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("serach.trials=2", ["serach", "no such key", "did you mean 'search'"]),
        ("search.trails=2", ["search.trails = 2", "no such key", "did you mean 'trials'"]),
        ("search.trials=0", ["search.trials = 0", "at least 1"]),
        ("search.trials=many", ["search.trials = 'many'", "whole number"]),
        ("search.trials=true", ["search.trials = True", "whole number"]),
        ("search.scheduler=ahsa", ["search.scheduler = 'ahsa'", "'asha'"]),
        ("search=5", ["search = 5", "a mapping"]),
        ("task.proxy=1.5", ["task.proxy = 1.5", "at most 1"]),
        ("task.proxy=0", ["task.proxy = 0", "above 0"]),
        ("task.name=", ["task.name = None", "allowed: text"]),
        (
            "task={name: reasoning_gym/chain_sum, train_rows: 64, validation_rows: 64}",
            ["task.validation_rows = 64", "train_rows = 64"],
        ),
        ("space.rank=[4,0]", ["space.rank[1] = 0", "at least 1"]),
        ("space.rank=[8,8]", ["space.rank", "8 is there twice"]),
        ("space.rank=[]", ["space.rank = []", "at least one value"]),
        ("space.learning_rate=-1", ["space.learning_rate[0] = -1", "above 0"]),
        ("space.learning_rate=.nan", ["space.learning_rate[0] = nan", "finite"]),
        ("space.dropout=1", ["space.dropout[0] = 1", "below 1"]),
        ("space.placement=attention", ["space.placement = 'attention'", "all-linear"]),
        ("space.extra={rank: [1]}", ["extra.rank", "space.rank"]),
        ("space.extra={beta: {a: 1}}", ["space.extra.beta[0]"]),
        ("default_recipe.alpha=0", ["default_recipe.alpha = 0", "above 0"]),
        ("resources.gpus_per_host=1.5", ["resources.gpus_per_host = 1.5", "whole number"]),
        ("resources.accelerator_type=A100", ["resources.accelerator_type = 'A100'", "gpus_per_host"]),
        ("resources.deepspeed_config=zero2", ["resources.deepspeed_config = 'zero2'", "strategy"]),
        ("quantization=fp4", ["quantization", "fp4", "nf4", "int8"]),
        ("resources.workers=4", ["resources.workers = 4", "smallest batch (2)"]),
        ("search.trials=60000", ["search.trials = 60000", "54432"]),
        ("name=../elsewhere", ["name = '../elsewhere'", "letters"]),
        ("dtype=float16", ["dtype = 'float16'", "'bfloat16'"]),
    ],
)
def test_mistake_names_field_value_and_remedy(spec_file: Path, override: str, parts: list[str]) -> None:
    line = refusal(spec_file, override)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["train.samples=384", "train.epochs=1"], ["train", "contradictory budget", "384"]),
        (["final.samples=384", "final.epochs=1"], ["final", "contradictory budget"]),
        (["space.alpha=16", "space.alpha_ratio=2"], ["space.alpha", "alpha_ratio", "one of them"]),
        (["resources.workers=2", "execution=hosted"], ["execution = 'hosted'", "resources.workers = 2"]),
        (["search.scheduler=asha", "train.reports=1"], ["train.reports = 1", "2 or more"]),
        (["search.scheduler=curve", "train.reports=1"], ["train.reports = 1", "2 or more"]),
        (["search.scheduler=curve", "resources.pack=2"], ["resources.pack = 2", "pack = 1"]),
        (["search.scheduler=curve", "resources.hosts=2"], ["resources.hosts = 2", "one host"]),
        (["search.scheduler=curve", "resources.hosts=auto"], ["resources.hosts = 'auto'", "one host"]),
        (["search.scheduler=curve", "resources.workers=2"], ["search.scheduler = 'curve'", "execution = 'train'"]),
        (["search.configurations=9"], ["search.configurations = 9", "scheduler = 'curve'"]),
    ],
)
def test_contradiction_names_both_sides(spec_file: Path, overrides: list[str], parts: list[str]) -> None:
    line = refusal(spec_file, *overrides)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("space.variant=[lora, rslroa]", ["space.variant = 'rslroa'", "did you mean 'rslora'"]),
        ("default_recipe.variant=x", ["default_recipe.variant = 'x'", "lora"]),
        ("space.extra={nitter: [3]}", ["space.extra.nitter", "did you mean 'niter'"]),
        ("default_recipe.extra={nitter: 3}", ["default_recipe.extra.nitter", "did you mean 'niter'"]),
        ("task.name=gsm9k", ["task.name = 'gsm9k'", "did you mean 'gsm8k'"]),
        ("task.name=reasoning_gym/chain_sun", ["chain_sun", "chain_sum"]),
        ("task.options={min_tersm: 2}", ["min_tersm"]),
        ("task.path=/no/such/rows", ["task.path = '/no/such/rows'"]),
        ("search.searcher=langauge", ["search.searcher = 'langauge'", "did you mean 'language'"]),
        ("search.options={pol: 2}", ["search.options.pol = 2", "did you mean 'pool'"]),
        ("model=smollm2-153m", ["model = 'smollm2-153m'", "did you mean 'smollm2-135m'"]),
        ("model=/no/such/folder", ["model = '/no/such/folder'", "no such folder"]),
        ("search.llm=nothing", ["search.llm = 'nothing'", "smollm2-135m"]),
        ("storage_path=/proc/runs", ["storage_path = '/proc/runs'", "cannot write"]),
    ],
)
def test_unknown_name_or_place_is_refused_before_anything_starts(
    spec_file: Path, override: str, parts: list[str]
) -> None:
    line = refusal(spec_file, override, check=True)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("zero", "told"),
    [
        ({"stage": 4}, "ZeRO stage 4; allowed: stage 0, 1, 2 or 3"),
        ({"stage": 2, "offload_param": {"device": "cpu"}}, "offload_param.device = 'cpu' with ZeRO stage 2"),
        ({"stage": 3, "offload_param": {"device": "gpu"}}, "allowed: none, cpu, nvme"),
        ({"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "/none"}}, "'/none': no such folder"),
    ],
)
def test_a_deepspeed_file_that_cannot_run_is_refused(
    spec_file: Path, tmp_path: Path, zero: dict[str, Any], told: str
) -> None:
    config = tmp_path / "own.json"
    config.write_text(json.dumps({"zero_optimization": zero}))
    chosen = ["resources.strategy=deepspeed", f"resources.deepspeed_config={config}"]
    assert told in refusal(spec_file, *chosen, check=True)


def test_a_variant_that_a_strategy_cannot_train_is_refused_with_the_reason(spec_file: Path) -> None:
    told = refusal(spec_file, "space.variant=dylora", "resources.strategy=deepspeed", check=True)
    assert "does not run on deepspeed (it puts back what a step moved" in told
    assert "allowed: ddp, fsdp, hosted" in told


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("task: {name: gsm8k}\n")
    assert refusal(path).startswith("model: missing")


def test_recipe_has_the_keys_of_the_space(spec_file: Path) -> None:
    for override, key, value in (("space.rank=8", "alpha_ratio", 2.0), ("space.alpha=[8,16]", "alpha", 16.0)):
        spec = load(spec_file, [override])
        recipe = spec.recipe_to_knobs()
        assert set(recipe) == set(spec.to_space().names)
        assert recipe[key] == value


def test_space_holds_the_given_and_the_default_values(spec_file: Path) -> None:
    spec = load(spec_file, ["space.rank=[4,8]", "space.variant=[lora,dora]", "space.extra={beta: 3}"])
    space = spec.to_space()
    assert len(space) == spec.space_size == 2 * 2 * 9 * 8 * 12 * 7
    assert space.decode(0)["beta"] == 3


def test_preset_paper_searches_table_1_where_no_rates_are_given(spec_file: Path) -> None:
    preset = "search.options={preset: paper}"
    spec = load(spec_file, [preset])
    assert spec.space_size == 45_360 and 3e-4 not in spec.space.learning_rate
    assert {one for one in spec.chosen() if one.startswith("space")} == set()
    assert from_dict(spec.to_dict()) == spec
    assert load(spec_file, [preset, "space.learning_rate=[3e-4]"]).space.learning_rate == [3e-4]
    assert load(spec_file, ["search.searcher=random"]).space_size == 54_432


def test_an_extra_knob_applies_to_the_variants_that_read_it(spec_file: Path) -> None:
    fixed = [
        "space.rank=8",
        "space.alpha_ratio=2",
        "space.batch_size=8",
        "space.learning_rate=1.0e-4",
        "space.dropout=0",
    ]
    extra = "space.extra={niter: [2,4]}"
    spec = load(spec_file, [*fixed, "space.variant=[lora,pissa]", extra, "search.trials=3"])
    space = spec.to_space()
    assert [(c["variant"], c.get("niter")) for c in map(space.decode, range(len(space)))] == [
        ("lora", None),
        ("pissa", 2),
        ("pissa", 4),
    ]
    assert spec.space_size == 3
    for variant, values in (("pissa", {2, 4}), ("lora", {None})):
        space = load(spec_file, [*fixed, f"space.variant={variant}", extra, f"search.trials={len(values)}"]).to_space()
        assert {space.decode(i).get("niter") for i in range(len(space))} == values


@pytest.mark.parametrize(
    ("resources", "mode"),
    [({}, "hosted"), ({"workers": 2}, "train"), ({"strategy": "deepspeed"}, "train")],
)
def test_mode_follows_from_the_resources(resources: dict[str, Any], mode: str) -> None:
    assert from_dict({**MINIMAL, "resources": resources}).mode == mode


def test_every_field_is_read_from_yaml_alone() -> None:
    with pytest.raises(UserError, match="model = 3: allowed: text"):
        from_dict({**MINIMAL, "model": 3})
    assert isinstance(from_dict(MINIMAL), Spec)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("exact", ["exact"]),
        (["exact", {"rouge": {"kind": "rouge1"}}], ["exact", {"rouge": {"kind": "rouge1"}}]),
        ({"gsm8k": "number", "math": "math"}, [{"gsm8k": "number"}, {"math": "math"}]),
    ],
)
def test_metrics_are_a_name_a_list_or_a_mapping(given: Any, read: Any) -> None:
    assert from_dict({**MINIMAL, "task": {**MINIMAL["task"], "metrics": given}}).task.metrics == read


@pytest.mark.parametrize(
    ("sets", "told"),
    [({"a": None}, "a has no source"), ({"a/b": "x"}, "'a/b' is no name"), ({"": "x"}, "'' is no name")],
)
def test_a_test_set_has_a_name_and_a_source(sets: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"^task.test_sets: {told}; allowed: "):
        from_dict({**MINIMAL, "task": {**MINIMAL["task"], "test_sets": sets}})


def test_the_longest_answer_is_said_once() -> None:
    task = {**MINIMAL["task"], "max_new_tokens": 4, "sampling": {"max_new_tokens": 5}}
    with pytest.raises(UserError, match=r"max_new_tokens = 4 and sampling.max_new_tokens = 5 contradict each other"):
        from_dict({**MINIMAL, "task": task})


def test_what_a_quantised_base_cannot_have_is_told_before_anything_starts(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["quantization=int8", "resources.strategy=fsdp"]
    assert "quantization = 'int8' with resources.strategy = 'fsdp'" in refusal(spec_file, *chosen)
    line = refusal(spec_file, "quantization=nf4", "space.variant=[lora,full]", check=True)
    assert line.startswith("space.variant = 'full': it trains the weights themselves") and "nf4" in line
    line = refusal(spec_file, "space.variant=loftq", check=True)
    assert line.startswith("space.variant = 'loftq': ") and "use nf4 or int8" in line
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    line = refusal(spec_file, "quantization=nf4", check=True)
    assert line.endswith("bitsandbytes is not installed; pip install 'raylora[quantization]'")


def test_a_spec_has_the_schedules_that_runs_have() -> None:
    assert get_args(TrainSpec.model_fields["schedule"].annotation) == SCHEDULES
