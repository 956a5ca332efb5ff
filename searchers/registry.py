"""Classes by name: the built-in ones found by file, others through the entry points of installed packages.

`searchers` and `trainables` import neither each other nor `raylora`, so each holds this file, word for word the same.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class PluginError(ValueError):
    """A class of an installed package that cannot be used; the message is one line: where it is from, what is wrong."""


class Registry(Generic[T]):
    """Name -> class, where a class is imported when it is first asked for; listing the names imports none.

    A built-in class lies in a module of `package` that is called as it is: module `gp` holds the one subclass of `base`
    whose `name` is "gp". A package beside this one adds a class through an entry point of `group`, under the class's
    `name`:

        [project.entry-points."raylora.searchers"]
        my_search = "my_package.my_search:MySearch"

    A broken entry point (it cannot be imported, is no such class, or takes a name that is taken) is one warning and
    does not stop the others.

    Args:
        package: of the built-in modules.
        group: of the entry points.
        base: `module:Class` that all classes derive from.
        apart: modules of the package that hold no built-in class: its machinery. So does a package in it.
    """

    def __init__(self, package: str, group: str, base: str, apart: tuple[str, ...] = ()) -> None:
        self.package, self.group, self.base = package, group, base
        self._apart = frozenset(apart)
        self._classes: dict[str, type[T]] = {}
        self._problems: dict[str, str] = {}
        self._names: tuple[frozenset[str], dict[str, EntryPoint]] | None = None

    # What there is.

    def names(self) -> list[str]:
        """All names, sorted; those of plug-ins that turn out not to load among them."""
        builtin, plugins = self._found()
        return sorted([*builtin, *plugins])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        builtin, plugins = self._found()
        return name in builtin or name in plugins

    def __len__(self) -> int:
        return len(self.names())

    def origin(self, name: str) -> str | None:
        """Name and version of the package that a plug-in is from; None for what is built in."""
        point = self._found()[1].get(name)
        return None if point is None else _distribution(point)

    # The classes.

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            PluginError: it is a plug-in that cannot be used.
            ValueError: there is no such name; the message lists those there are.
        """
        if name not in self._classes:
            builtin, plugins = self._found()
            if name in builtin:
                self._classes[name] = self._builtin(name)
            elif name in plugins:
                self._classes[name] = self._plugin(plugins[name])
            else:
                raise ValueError(f"{self.group}: {name!r} is unknown: use one of {', '.join(self.names())}")
        return self._classes[name]

    def get(self, name: str) -> type[T] | None:
        """The class of that name, None where there is none. Raises PluginError as above."""
        if name not in self:
            return None
        return self[name]

    def classes(self) -> dict[str, type[T]]:
        """All classes that load, by name; each of the others is told in one warning, once per process."""
        found = {}
        for name in self.names():
            try:
                found[name] = self[name]
            except PluginError:
                continue
        return found

    def problems(self) -> list[str]:
        """A line for each plug-in that cannot be used. Imports all of them."""
        self.classes()
        return list(self._problems.values())

    def _builtin(self, name: str) -> type[T]:
        module = import_module(f"{self.package}.{name}")
        base = self._base()
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, base) and getattr(value, "name", None) == name:
                return value
        raise TypeError(f"{module.__name__} has no {base.__name__} with the name {name!r}")

    def _plugin(self, point: EntryPoint) -> type[T]:
        if point.name in self._problems:
            raise PluginError(self._problems[point.name])
        base = self._base()
        try:
            cls: Any = point.load()
        except (Exception, SystemExit) as error:  # whatever another package does when it is imported
            said = (str(error).splitlines() or [""])[0]
            raise self._broken(point, f"cannot be imported ({type(error).__name__}: {said})") from error
        if not isinstance(cls, type) or not issubclass(cls, base):
            raise self._broken(point, f"is no subclass of {base.__module__}.{base.__name__}")
        if getattr(cls, "name", None) != point.name:
            raise self._broken(point, f"is called {getattr(cls, 'name', None)!r}; give both the same name")
        return cls

    def _broken(self, point: EntryPoint, problem: str, key: str | None = None) -> PluginError:
        line = f"plug-in of {_distribution(point)}: {self.group}: {point.name} = {point.value}: {problem}"
        self._problems[key or point.name] = line
        log.warning("%s", line)
        return PluginError(line)

    def _base(self) -> type[Any]:
        module, _, name = self.base.partition(":")
        return getattr(import_module(module), name)

    def _found(self) -> tuple[frozenset[str], dict[str, EntryPoint]]:
        """Built-in names, and the entry points whose names are free."""
        if self._names is None:
            inside = pkgutil.iter_modules(import_module(self.package).__path__)
            builtin = frozenset(m.name for m in inside if not m.ispkg and m.name not in self._apart)
            plugins: dict[str, EntryPoint] = {}
            points = entry_points(group=self.group)
            for point in sorted(points, key=lambda one: (one.name, _distribution(one), one.value)):
                if point.name in builtin:
                    self._broken(point, "there is a built-in one of that name; choose another", f"{point!r}")
                elif point.name not in plugins:
                    plugins[point.name] = point
                elif point.value != plugins[point.name].value:
                    taken = _distribution(plugins[point.name])
                    self._broken(point, f"{taken} has one of that name; choose another", f"{point!r}")
            self._names = builtin, plugins
        return self._names


def _distribution(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
