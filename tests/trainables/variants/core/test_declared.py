from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from searchers.surrogate.facts import scale_of
from trainables.variants import available, declared, get_variant, scale_rules
from trainables.variants.core.declared import SCALES, Declared, declared_of, read_declared


@pytest.mark.parametrize("name", available())
def test_what_is_read_from_the_file_is_what_the_class_has(name: str) -> None:
    # A value that is computed, annotated or inherited would be missed.
    assert declared(name) == declared_of(get_variant(name))


def test_declarations_are_read_without_torch() -> None:
    code = (
        "import sys; from trainables.variants import scale_rules; assert scale_rules(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_scale_rules_are_those_that_differ_from_lora() -> None:
    rules = scale_rules()
    assert {name for name, rule in rules.items() if rule == "1"} == {"full", "lelora", "loft", "miss", "vera"}
    assert {name for name, rule in rules.items() if rule != "1"} == {"rslora"}


def test_searchers_know_every_rule() -> None:
    assert [scale_of({"rank": 16, "alpha": 32}, rule) for rule in SCALES] == [2.0, 8.0, 1.0]


def test_the_kin_of_a_rate_is_a_variant() -> None:
    kin = {declared(name).rate_of for name in available()} - {None}
    assert kin and kin <= set(available())


def test_a_class_without_declarations_has_the_usual_ones(tmp_path: Path) -> None:
    file = tmp_path / "plain.py"
    file.write_text("class Plain:\n    name = 'plain'\n\n\nclass Other:\n    name = 'other'\n    scale_rule = '1'\n")
    assert read_declared(file, "plain") == Declared()
    assert read_declared(file, "other") == Declared(scale_rule="1")
