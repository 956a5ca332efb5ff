"""The interpreter that programs run in, and the files of the machine that it needs to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec

# Loads every extension module of the standard library, which is trusted, and tells which files that mapped.
_PROBE = """
import importlib, json, os, sys, sysconfig, ctypes
stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
dynload = os.path.realpath(sysconfig.get_config_var("DESTSHARED") or os.path.join(stdlib, "lib-dynload"))
for name in sorted(os.listdir(dynload) if os.path.isdir(dynload) else []):
    module = name.partition(".")[0]
    if module.startswith(("_test", "_xx", "xx", "_tkinter")):
        continue
    try:
        importlib.import_module(module)
    except Exception:
        pass
with open("/proc/self/maps") as maps:
    mapped = {line.split(None, 5)[5].strip() for line in maps if line.count("/")}
mapped = sorted(path for path in mapped if path.startswith("/") and os.path.isfile(path))
print(json.dumps([list(sys.version_info[:2]), stdlib, dynload, mapped]))
"""
# Tells which shared libraries a package loads.
_MAPPED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
with open("/proc/self/maps") as maps:
    mapped = {line.split(None, 5)[5].strip() for line in maps if line.count("/")}
print(json.dumps(sorted(path for path in mapped if ".so" in path.rpartition("/")[2])))
"""
_ALSO_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")
_ALSO_TREES = ("/usr/share/zoneinfo",)
# What published tests and answers use beside the standard library, and no package else.
_PACKAGES = ("numpy",)


@dataclass(frozen=True)
class Runtime:
    """An interpreter and what it reads.

    Attributes:
        python: its real path, outside any virtual environment.
        stdlib: the folder of its standard library.
        libraries: the shared libraries that it and its extension modules load.
        files: other single files, the top of the library among them.
        trees: folders with all that they hold; installed packages are not among them.
        packages: installed packages that are shown all the same: name -> folder.
    """

    python: str
    stdlib: str
    libraries: tuple[str, ...]
    files: tuple[str, ...]
    trees: tuple[str, ...]
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether it is the one that runs this process."""
        return self.python == os.path.realpath(sys.executable)

    def showing(self, names: Collection[str]) -> Runtime:
        """Itself with those of these packages that may be shown: another interpreter may have other versions."""
        asked = {name: _package(name) for name in _PACKAGES if name in names and self.own}
        shown = {name: found for name, found in asked.items() if found is not None}
        return replace(
            self,
            libraries=(*self.libraries, *(path for _, libraries in shown.values() for path in libraries)),
            trees=(*self.trees, *(folder for folders, _ in shown.values() for folder in folders)),
            packages={name: folders[0] for name, (folders, _) in shown.items()},
        )


@cache
def runtime(python: str | None = None) -> Runtime:
    """The interpreter at `python`, this one where None. Looked at once per process, about half a second.

    Raises:
        OSError, subprocess.CalledProcessError: no interpreter is there, or this user cannot start it.
    """
    real = os.path.realpath(python or sys.executable)
    command = [real, "-I", "-S", "-B", "-c", _PROBE]
    told = subprocess.run(command, capture_output=True, check=True, env={}, cwd="/", timeout=60).stdout
    version, stdlib, dynload, mapped = json.loads(told)
    if version < [3, 11]:
        raise OSError(f"{real} is Python {version[0]}.{version[1]}, older than 3.11")
    libraries = [path for path in mapped if ".so" in os.path.basename(path)]
    files, trees = [real, *_ALSO_FILES], [dynload, *_ALSO_TREES]
    for entry in os.scandir(stdlib):
        if entry.name in ("site-packages", "dist-packages", "test", "tests"):
            continue
        (trees if entry.is_dir() else files).append(entry.path)
    return Runtime(real, stdlib, tuple(libraries), tuple(sorted(set(files))), tuple(sorted(set(trees))))


@cache
def _package(name: str) -> tuple[list[str], list[str]] | None:
    """Folders of a package of this interpreter, its own first, and the libraries that it loads; None without it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    folder = os.path.dirname(os.path.realpath(spec.origin))
    folders = [path for path in (folder, f"{folder}.libs") if os.path.isdir(path)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MAPPED, name], capture_output=True, check=True, cwd="/", timeout=60
        )
        return folders, json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
