from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.spec import from_dict
from raylora.spec.budget import budget_seconds, duration

BASE = {"model": "smollm2-135m", "task": {"path": "rows.jsonl"}}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("6h", 21600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), ("1H 30M", 5400)],
)
def test_times_are_read(text, seconds) -> None:
    assert budget_seconds(text) == seconds


def test_gpu_hours_are_shared_by_the_gpus() -> None:
    assert budget_seconds("100gpuh", gpus=8) == 45000


@pytest.mark.parametrize("text", ["20", "m", "0m", "-5m", "20x", "5 minutes", ""])
def test_what_is_no_time_is_refused(text) -> None:
    with pytest.raises(ValueError, match="20m, 1h30m, 6h, 100gpuh"):
        budget_seconds(text)


@pytest.mark.parametrize("value", [20, "20", True, ["20m"]])
def test_a_spec_refuses_it_in_one_line(value) -> None:
    with pytest.raises(UserError, match=r"^budget = .*allowed: a time with its unit"):
        from_dict({**BASE, "budget": value})


def test_gpu_hours_without_gpus_are_refused() -> None:
    with pytest.raises(UserError, match=r"budget = '10gpuh': no GPU is used; allowed: resources.gpus_per_host"):
        from_dict({**BASE, "budget": "10gpuh"})
    spec = from_dict({**BASE, "budget": "10gpuh", "resources": {"hosts": 2, "gpus_per_host": 1.0}})
    assert spec.budget_s == 18000


def test_a_spec_without_a_budget_has_none() -> None:
    assert from_dict(BASE).budget_s is None


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (5, 89, 600, 7200, 12000, 3 * 86400)] == [
        "5 s", "89 s", "10 min", "2 h", "3 h 20 min", "3.0 days",
    ]  # fmt: skip
