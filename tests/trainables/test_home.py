from __future__ import annotations

from pathlib import Path

from trainables.home import home


def test_the_environment_names_the_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    assert home() == tmp_path


def test_without_it_the_users_cache_is_taken(monkeypatch) -> None:
    monkeypatch.delenv("RAYLORA_HOME", raising=False)
    assert home() == Path.home() / ".cache" / "raylora"
