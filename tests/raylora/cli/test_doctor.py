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


def test_what_is_optional_is_no_fault(ray, monkeypatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    checks = [machine._optional(name) for name in machine.OPTIONAL]
    assert {check.state for check in checks} == {"optional"} and all(check.remedy for check in checks)
    assert machine.works(checks)


def test_a_check_that_fails_itself_is_told_not_raised() -> None:
    def broken() -> Check:
        raise OSError("no disk")

    found = machine._run(broken)
    assert found.state == "broken" and "no disk" in found.found


def test_a_folder_that_cannot_be_written_is_broken(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert machine._disk("disk", tmp_path / "none", "elsewhere").state == "broken"


def test_gpus_are_those_that_are_visible(monkeypatch) -> None:
    class Told:
        stdout = "A100\nA100\n"

    monkeypatch.setattr(machine.subprocess, "run", lambda *a, **k: Told)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpu_names() == ["A100", "A100"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert machine.gpu_names() == ["A100"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpu_names() == []
