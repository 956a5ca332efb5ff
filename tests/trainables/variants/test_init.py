"""Every public function of the package has an example that holds."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

from trainables import variants

FUNCTIONS = [name for name in variants.__all__ if inspect.isfunction(inspect.unwrap(vars(variants).get(name, object)))]


def test_all_functions_that_are_offered_are_asked() -> None:
    assert {"available", "declared", "describe", "get_variant", "scale_rules", "start_actors"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_of_a_public_function_hold(name: str) -> None:
    function = inspect.unwrap(getattr(variants, name))
    scope = vars(variants) | {"Path": Path}
    (test,) = doctest.DocTestFinder().find(function, name, module=False, globs=scope)
    assert test.examples, f"{name} has no example"
    assert doctest.DocTestRunner().run(test).failed == 0
