"""What `import raylora` offers: quick to import, and every name with an example that holds."""

from __future__ import annotations

import doctest
import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raylora

ROOT = Path(__file__).resolve().parents[3]
# Three examples begin with one and the same call.
evaluate_once = functools.cache(raylora.evaluate)


def examples(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(getattr(raylora, name), name, module=False, globs={"raylora": raylora})
    return [test for test in found if test.examples]


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, raylora, raylora.cli; print(sorted({'torch', 'ray', 'pandas', 'pydantic'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_that_are_offered_are_listed_and_others_are_refused() -> None:
    assert set(raylora.__all__) <= set(dir(raylora))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = raylora.nonsense


@pytest.mark.parametrize("name", raylora.__all__)
def test_examples_of_a_public_name_hold(name, workplace, request, monkeypatch, tmp_path) -> None:
    tests = examples(name)
    assert tests, f"raylora.{name} has no example"
    if name in ("Evaluation", "evaluate", "tune"):  # the others open what is there
        request.getfixturevalue("ray_local")
    monkeypatch.setattr(raylora, "evaluate", evaluate_once)
    monkeypatch.chdir(tmp_path)
    for file in ("spec.yaml", "runs"):
        (tmp_path / file).symlink_to(workplace / file)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for test in tests:
        runner.run(test, out=told.append)
    assert not runner.summarize(verbose=False).failed, "".join(told)


def parts(name: str) -> list[str]:
    """What a class offers by itself: its methods and properties, dotted."""
    cls = getattr(raylora, name)
    own = [part for part, value in vars(cls).items() if inspect.isfunction(value) or isinstance(value, property)]
    return [f"{name}.{part}" for part in own if not part.startswith("_")]


@pytest.mark.parametrize("name", [*parts("Run"), *parts("Spec"), *parts("TunedModel")])
def test_every_part_of_a_class_has_an_example(name: str) -> None:
    assert any(test.name == name for test in examples(name.partition(".")[0]))
