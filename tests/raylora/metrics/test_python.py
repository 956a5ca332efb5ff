from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.python import Python
from raylora.metrics.testing import MetricConformance, row, text_case


def politeness(completions, rows):
    assert all({"prompt", "response", "answer", "metadata"} <= set(row) for row in rows)
    return [float("please" in text) for text in completions]


MODULE = """
def few(completions, rows):
    return [1.0]

def nan(completions, rows):
    return [float("nan")] * len(rows)

def broken(completions, rows):
    raise KeyError("gone")

def length(completions, rows):
    return [len(text) for text in completions]

def ends(completions, rows):
    raise SystemExit(3)

def huge(completions, rows):
    return [10**400] * len(rows)

def lines(completions, rows):
    return ["a\\nb"] * len(rows)

def nothing(completions, rows):
    print("on the way")

def late(completions, rows):
    from beside_it import value
    return [value] * len(rows)

print("imported")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module in the working folder."""
    name = f"scores_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


class TestPython(MetricConformance):
    @pytest.fixture
    def metric(self, monkeypatch):
        module = type(pytest)("scores_of_this_test")
        module.politeness = politeness
        monkeypatch.setitem(__import__("sys").modules, "scores_of_this_test", module)
        return Python(function="scores_of_this_test:politeness")

    @pytest.fixture
    def case(self):
        return text_case(right=["please", "yes please"], wrong=["no", ""], answers=["", ""])


def test_a_function_of_the_working_folder_is_found_from_elsewhere(module, tmp_path, monkeypatch):
    metric = make_metric("python", {"function": f"{module}:length", "mode": "min", "worst": 99})
    monkeypatch.chdir("/")
    assert metric.score(["abc", ""], [row("")] * 2) == [3.0, 0.0]
    assert (metric.mode, metric.worst, metric.reported) == ("min", 99.0, "length")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", "gave 1 values for 2 rows; give one each"),
        ("nan", "gave nan for row 0; give a finite number"),
        ("broken", r"failed \(KeyError: 'gone'\)"),
        ("ends", r"failed \(SystemExit: 3\); mend it"),
        ("huge", r"gave 1000.*\.\.\. for row 0; give a finite number"),
        ("lines", r"gave 'a\\nb' for row 0; give a finite number"),
        ("nothing", r"failed \(TypeError: 'NoneType' object is not iterable\)"),
    ],
)
def test_a_function_that_does_otherwise_is_told_in_one_line(module, name, message):
    metric = Python(function=f"{module}:{name}")
    with pytest.raises(UserError, match=rf"python\.function: .*{message}"):
        metric.score(["a", "b"], [row("")] * 2)


def test_what_it_prints_is_kept_off_the_answer_and_what_lies_beside_it_is_found(module, tmp_path, monkeypatch, capsys):
    (tmp_path / "beside_it.py").write_text("value = 0.5")
    metric = Python(function=f"{module}:late")
    monkeypatch.chdir("/")
    assert metric.score(["a"], [row("")]) == [0.5]
    told = capsys.readouterr()
    assert told.out == "" and "imported" in told.err


def test_a_module_that_ends_the_process_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit('usage: a_script')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'a_script:f' cannot be imported \(SystemExit: usage: a_script\)"):
        Python(function="a_script:f")


@pytest.mark.parametrize("function", ["no_such_module_here:f", "math:no_such", "math", "", "math:pi"])
def test_what_is_no_function_is_refused_at_once(function):
    with pytest.raises(UserError, match=r"python\.function: .*give package\.module:function"):
        make_metric("python", {"function": function})
