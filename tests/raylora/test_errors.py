from __future__ import annotations

import ast
import pickle
from collections import Counter
from pathlib import Path

import pytest

from clusters.errors import ClusterError
from raylora.cluster import users_errors
from raylora.errors import UserError, user_error_of
from searchers import errors as searchers
from trainables import errors as variants

Told = UserError | ClusterError | searchers.OptionError | variants.OptionError
PACKAGE = Path(__file__).parents[2] / "raylora"
# By file, how many errors are of no field: they tell of what went on, not of what was asked for.
OF_NO_FIELD = {
    "bench/data.py": 1,  # a run that is measured fails
    "run/requests.py": 1,  # a search refuses what it was asked
    "run/steering.py": 4,
}


def refuse(*_: object) -> None:
    raise UserError("task.x = 3: too small; allowed: 4", field="task.x", value=3, allowed=[4])


def parts(error: Told) -> tuple[object, ...]:
    return str(error), error.field, error.value, error.allowed


EXPECTED = ("task.x = 3: too small; allowed: 4", "task.x", 3, [4])


@pytest.mark.parametrize("kind", [UserError, ClusterError, variants.OptionError])
def test_fields_survive_pickling(kind: type[Told]) -> None:
    error = kind(EXPECTED[0], field="task.x", value=3, allowed=[4])
    assert parts(pickle.loads(pickle.dumps(error))) == EXPECTED


def test_fields_of_a_searchers_option_survive_pickling() -> None:
    error = searchers.OptionError("task.x", "too small; allowed: 4", value=3, allowed=[4])
    assert parts(pickle.loads(pickle.dumps(error))) == ("task.x: too small; allowed: 4", "task.x", 3, [4])


def test_every_error_names_its_field() -> None:
    found: Counter[str] = Counter()
    for file in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        # `UserError.at` and `UserError.around` ask for it themselves.
        made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "UserError"]
        bare = [call for call in made if not any(keyword.arg in ("field", None) for keyword in call.keywords)]
        found.update([str(file.relative_to(PACKAGE))] * len(bare))
    assert found == OF_NO_FIELD


def test_the_error_of_a_part_is_told_below_the_whole() -> None:
    inner = UserError.at("width", "0 is too small", value=0, allowed="1 or more")
    outer = UserError.around("search.options.", inner)
    assert parts(outer) == ("search.options.width: 0 is too small", "search.options.width", 0, "1 or more")
    assert parts(UserError.around("--arms a: ", ValueError("no"), field="--arms", value="a"))[1:] == (
        "--arms",
        "a",
        None,
    )


def test_fields_survive_a_remote_call(ray_local) -> None:
    import ray

    with pytest.raises(UserError) as caught, users_errors():
        ray.get(ray.remote(refuse).options(num_cpus=0).remote())
    assert parts(caught.value) == EXPECTED


def test_another_failure_of_a_remote_call_stays_what_it_is(ray_local) -> None:
    import ray

    def fail() -> None:
        raise ZeroDivisionError("three")

    with pytest.raises(ZeroDivisionError, match="three"), users_errors():
        ray.get(ray.remote(fail).options(num_cpus=0).remote())


def test_an_error_without_a_users_mistake_behind_it_has_none() -> None:
    assert user_error_of(KeyError("x")) is None
    loop = ValueError("loop")
    loop.__cause__ = loop
    assert user_error_of(loop) is None


def test_what_a_mistake_was_raised_as_is_looked_behind() -> None:
    try:
        try:
            refuse()
        except UserError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        found = user_error_of(error)
    assert found is not None and parts(found) == EXPECTED
