from __future__ import annotations


def test_folder_of_a_model_is_told(tiny_model, table, answer) -> None:
    assert table("models", "pull", tiny_model).strip() == str(tiny_model)
    assert answer("models", "pull", tiny_model) == {"name": str(tiny_model), "folder": str(tiny_model)}


def test_unknown_model_is_one_line(mistake) -> None:
    assert "is unknown" in mistake("models", "pull", "nonsense")
