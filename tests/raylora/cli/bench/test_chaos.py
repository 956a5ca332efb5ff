from __future__ import annotations

import pytest

from raylora.cli import main


@pytest.mark.parametrize("arguments", [["--kills", "0"], ["--kinds", "printer"]], ids=lambda words: words[0])
def test_a_mistake_is_told_in_a_line(capsys, arguments) -> None:
    assert main(["bench", "chaos", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"raylora: {arguments[0]}")
