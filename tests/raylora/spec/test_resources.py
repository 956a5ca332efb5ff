from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.spec import EvaluateSpec, ResourcesSpec, Spec, from_dict

BASE = {"model": "smollm2-135m", "task": {"path": "rows.jsonl"}}


@pytest.mark.parametrize("value", ["many", "Auto", "2", 0, -1, 2.5, True, None, [1]])
def test_hosts_are_a_number_or_auto(value) -> None:
    with pytest.raises(UserError, match=r"^resources.hosts = .*: allowed: auto, or a whole number of at least 1$"):
        from_dict({**BASE, "resources": {"hosts": value}})


def test_a_pack_has_a_largest_size() -> None:
    with pytest.raises(UserError, match=r"^resources.pack = 65: .* of at least 1 and at most 64$"):
        from_dict({**BASE, "resources": {"pack": 65}})


def test_hosts_that_nobody_has_counted_are_reckoned_with_as_one() -> None:
    spec = from_dict({**BASE, "resources": {"hosts": "auto"}})
    assert spec.resources.at_a_time == 1 and spec.counted(3).resources.at_a_time == 3
    assert spec.resources.hosts == "auto"
    assert from_dict({**BASE, "resources": {"hosts": 2}}).counted(3).resources.at_a_time == 2


def test_gpu_hours_need_a_number_of_gpus() -> None:
    with pytest.raises(UserError, match=r"^budget = '10gpuh': resources.hosts = 'auto' uses what is there; allowed: "):
        from_dict({**BASE, "budget": "10gpuh", "resources": {"hosts": "auto", "gpus_per_host": 1.0}})


def with_part(**parts) -> Spec:
    return from_dict({"model": "m", "task": {"name": "instruct"}, **parts})


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_gpus_are_whole_or_a_share_of_one(share: float) -> None:
    assert ResourcesSpec(gpus_per_host=share).gpus_per_host == share
    with pytest.raises(UserError, match=r"gpus_per_host = 1.5; allowed: a whole number"):
        with_part(resources={"gpus_per_host": 1.5})


def test_gpus_of_an_engine_need_the_engine() -> None:
    assert EvaluateSpec(engine="vllm", gpus=0.5).gpus == 0.5
    with pytest.raises(UserError, match=r"gpus = 1 with engine = .transformers"):
        with_part(evaluate={"gpus": 1.0})
