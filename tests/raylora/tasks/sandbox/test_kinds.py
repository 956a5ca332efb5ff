from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks.sandbox import Sandbox, kinds
from raylora.tasks.sandbox.kinds import Available, available, choose


def test_the_kind_in_force_and_what_the_others_lack_are_said() -> None:
    said = str(Available("landlock", {"wasm": "wasmtime missing"}))
    assert said == "sandbox: landlock; no wasm: wasmtime missing"


def test_an_unknown_kind_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="unknown kind 'docker'; choose landlock"):
        choose("docker", unsafe=False)


def test_no_walls_only_where_that_is_said() -> None:
    with pytest.raises(UserError, match="--unsafe-code"):
        choose("none", unsafe=False)
    assert choose("none", unsafe=True) == "none"


def test_without_any_sandbox_code_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "lacks", lambda kind: f"no {kind} here")
    with pytest.raises(UserError, match=r"landlock: no landlock here; .*--unsafe-code") as refused:
        Sandbox()
    assert "\n" not in str(refused.value)


def test_without_any_sandbox_code_runs_unsafely_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "lacks", lambda kind: "nothing here")
    assert choose(None, unsafe=True) == "none"


def test_a_kind_that_cannot_be_had_is_refused_even_where_unsafe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "lacks", lambda kind: "it is not installed")
    with pytest.raises(UserError, match="bubblewrap cannot be had here: it is not installed"):
        choose("bubblewrap", unsafe=True)


def test_every_kind_is_either_to_be_had_or_has_its_reason() -> None:
    here = available()
    assert here.kind not in here.missing
    assert set(here.missing) < {"landlock", "bubblewrap", "wasm"} or here.kind is None


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"/no/such/python.*give another python"):
        Sandbox("none", unsafe=True, python="/no/such/python")
