from __future__ import annotations

from raylora.run.plan import machine
from raylora.run.plan.machine import Check


def test_what_is_optional_is_no_fault(monkeypatch) -> None:
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
