from __future__ import annotations


def test_aliases_are_listed_with_their_place(monkeypatch, tmp_path, table, answer) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    assert answer("models", "list")[0]["path"] is None
    folder = tmp_path / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert answer("models", "list")[0]["path"] == str(folder)
    assert "smollm2-135m" in table("models", "list")
