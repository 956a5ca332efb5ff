from __future__ import annotations

import json

import pytest

from raylora.cli import main
from raylora.run.plan import machine
from raylora.run.plan.machine import Check


@pytest.fixture
def ray(monkeypatch):
    """Ray's own check takes long: here it finds what it is told."""

    def found(state: str) -> None:
        monkeypatch.setattr(machine, "_ray", lambda: Check("Ray", state, "told", "mend it"))

    found("ok")
    return found


def test_a_machine_that_works_is_status_0(ray, capsys, tmp_path) -> None:
    assert main(["doctor", "--to", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in told["checks"]]
    assert told["works"] and {"software", "memory", "accelerators", "shared memory", "Ray", "deepspeed"} <= set(names)


def test_what_is_broken_is_status_1_with_the_remedy(ray, capsys, tmp_path) -> None:
    ray("broken")
    assert main(["doctor", "--to", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "BROKEN" in told and "mend it" in told
