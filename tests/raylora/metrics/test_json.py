from __future__ import annotations

import json

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.json import Json
from raylora.metrics.testing import MetricConformance, row, text_case

SCHEMA = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer", "minimum": 0}}}


class TestJson(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Json(schema=SCHEMA)

    @pytest.fixture
    def case(self):
        return text_case(right=['{"name": 1}', '```json\n{"name": 2}\n```'], wrong=["{}", "{"], answers=["{}", "{}"])


@pytest.mark.parametrize(
    ("completion", "values"),
    [
        ('{"name": "a", "age": 3}', (1.0, 1.0, 1.0)),
        ('{ "age": 3.0, "name": "a" }', (1.0, 1.0, 1.0)),
        ('{"name": "a", "age": -3}', (1.0, 0.0, 0.0)),
        ('Here:\n```json\n{"name": "a", "age": 3}\n```\nDone.', (1.0, 1.0, 1.0)),
        ('{"name": NaN}', (0.0, 0.0, 0.0)),
        ('{"name": "a"', (0.0, 0.0, 0.0)),
        ("", (0.0, 0.0, 0.0)),
        ("[" * 100_000, (0.0, 0.0, 0.0)),
    ],
)
def test_validity_schema_and_equality_are_told_apart(completion, values):
    assert Json(schema=SCHEMA).score([completion], [row('{"name": "a", "age": 3}')]) == [values]


def test_true_is_not_one():
    assert Json().score(["[true]"], [row("[1]")]) == [(1.0, 1.0, 0.0)]


def test_a_fence_counts_only_where_it_may():
    assert Json(fenced=False).score(["```\n{}\n```"], [row("{}")]) == [(0.0, 0.0, 0.0)]


def test_a_row_can_have_a_schema_of_its_own():
    rows = [row("1", metadata=json.dumps({"schema": {"type": kind}})) for kind in ("string", "number")]
    assert [value[1] for value in Json().score(["1", "1"], rows)] == [0.0, 1.0]


def test_a_schema_can_lie_in_a_file(tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    metric = make_metric("json", {"schema": str(tmp_path / "schema.json")})
    assert metric.summarise(metric.score(['{"name": 1}', "{}"], [row("{}")] * 2)).value == 0.5


def test_what_is_no_schema_is_refused():
    with pytest.raises(UserError, match=r"json\.schema: no JSON schema: "):
        make_metric("json", {"schema": {"type": "thing"}})


def test_a_reference_to_elsewhere_is_not_followed():
    metric = Json(schema={"$ref": "http://localhost:9/schema.json"})
    with pytest.raises(UserError, match=r"json\.schema: a reference in it cannot be followed"):
        metric.score(["{}"], [row("{}")])


def test_a_number_beyond_all_bounds_is_a_multiple_of_none():
    assert Json(schema={"multipleOf": 0.1}).score(["1e400"], [row("1")])[0][1] == 0.0
