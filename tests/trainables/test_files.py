from __future__ import annotations

import os

import pytest

from trainables.files import replace_text


def test_a_file_holds_the_new_text_and_nothing_is_left_beside_it(tmp_path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("a former, longer text")
    replace_text(file, "grün\n")
    assert file.read_text(encoding="utf-8") == "grün\n"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_the_former_text_stays_until_the_new_one_is_whole(tmp_path, monkeypatch) -> None:
    file = tmp_path / "plan.json"
    file.write_text("former")

    def killed(*paths) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_text(file, "new")
    assert file.read_text() == "former"
