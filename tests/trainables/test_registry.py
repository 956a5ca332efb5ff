from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from trainables.registry import PluginError, Registry

GROUP = "raylora.shapes"
BASE = "class Shape:\n    name = ''\n"
SQUARE = "from {package}.base import Shape\n\n\nclass Any(Shape):\n    name = '{name}'\n"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with two built-in shapes, a machinery module that fails when it is imported, and a sub-package."""
    package = f"shapes_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / package
    (folder / "core").mkdir(parents=True)
    (folder / "core" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(BASE)
    (folder / "machine.py").write_text("raise RuntimeError('imported')\n")
    for name in ("circle", "square"):
        (folder / f"{name}.py").write_text(SQUARE.format(package=package, name=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def install(folder: Path, package: str, points: dict[str, str], distribution: str = "extras", **modules: str) -> None:
    """A distribution with these entry points, as an installer leaves it on the path."""
    about = folder / f"{distribution}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    for name, text in modules.items():
        (folder / package / f"extra_{name}.py").write_text(text)


def registry(package: str) -> Registry[object]:
    return Registry(package, GROUP, f"{package}.base:Shape", apart=("base", "machine", *EXTRAS))


EXTRAS = tuple(f"extra_{name}" for name in ("star", "bad", "wrong", "other"))


def test_built_in_classes_are_found_by_file_without_an_import(house: str) -> None:
    shapes = registry(house)
    assert shapes.names() == list(shapes) == ["circle", "square"]
    assert len(shapes) == 2 and "circle" in shapes and "machine" not in shapes
    assert f"{house}.circle" not in sys.modules
    assert shapes["circle"].__module__ == f"{house}.circle"


def test_an_unknown_name_is_refused_with_those_there_are(house: str) -> None:
    with pytest.raises(ValueError, match=r"raylora.shapes: 'cube' is unknown: use one of circle, square"):
        registry(house)["cube"]


def test_a_built_in_file_without_its_class_is_a_mistake_of_its_author(house: str, tmp_path: Path) -> None:
    (tmp_path / house / "empty.py").touch()
    with pytest.raises(TypeError, match="empty has no Shape with the name 'empty'"):
        registry(house)["empty"]


def test_a_plugin_is_found_by_its_entry_point(house: str, tmp_path: Path) -> None:
    star = SQUARE.format(package=house, name="star")
    install(tmp_path, house, {"star": f"{house}.extra_star:Any"}, star=star)
    shapes = registry(house)
    assert shapes.names() == ["circle", "square", "star"]
    assert f"{house}.extra_star" not in sys.modules
    assert shapes["star"].__module__ == f"{house}.extra_star"
    assert (shapes.origin("star"), shapes.origin("circle")) == ("extras 1.2", None)
    assert shapes.problems() == []


@pytest.mark.parametrize(
    ("point", "value", "problem"),
    [
        ("star", "extra_bad:Any", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("star", "extra_star:Missing", r"cannot be imported \(AttributeError: .*Missing.*\)"),
        ("star", "extra_wrong:Any", r"is no subclass of \w+\.base\.Shape"),
        ("star", "extra_other:Any", "is called 'other'; give both the same name"),
        ("circle", "extra_star:Any", "there is a built-in one of that name; choose another"),
    ],
)
def test_a_broken_plugin_is_one_line_and_does_not_stop_the_others(
    point: str, value: str, problem: str, house: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    star, other = (SQUARE.format(package=house, name=name) for name in ("star", "other"))
    modules = {"star": star, "other": other, "bad": "1 / 0\n", "wrong": "class Any: name = 'star'\n"}
    install(tmp_path, house, {point: f"{house}.{value}"}, **modules)
    install(tmp_path, house, {"other": f"{house}.extra_other:Any"}, "good")
    shapes = registry(house)
    assert set(shapes.classes()) == {"circle", "square", "other"}
    (line,) = shapes.problems()
    assert caplog.messages == [line]
    assert line.startswith(f"plug-in of extras 1.2: {GROUP}: {point} = {house}.{value}: ")
    assert line.count("\n") == 0
    assert re.search(problem, line)


def test_asking_for_a_broken_plugin_says_what_is_wrong(house: str, tmp_path: Path) -> None:
    install(tmp_path, house, {"star": f"{house}.extra_bad:Any"}, bad="import no_such_module\n")
    shapes = registry(house)
    for _ in range(2):
        with pytest.raises(PluginError, match=r"plug-in of extras 1.2: .*No module named 'no_such_module'"):
            shapes["star"]


def test_of_two_plugins_with_one_name_the_first_by_package_is_kept(house: str, tmp_path: Path) -> None:
    star = SQUARE.format(package=house, name="star")
    install(tmp_path, house, {"star": f"{house}.extra_star:Any"}, star=star)
    install(tmp_path, house, {"star": f"{house}.extra_other:Any"}, "later")
    assert len(entry_points(group=GROUP)) == 2
    shapes = registry(house)
    assert shapes["star"].__module__ == f"{house}.extra_star"
    (line,) = shapes.problems()
    assert line.startswith(f"plug-in of later 1.2: {GROUP}: star = {house}.extra_other:Any: ")
    assert line.endswith(": extras 1.2 has one of that name; choose another")
