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
        packages: packages that are shown to what imports them: name -> its folder, and that of its libraries.
    """

    python: str
    stdlib: str
    libraries: tuple[str, ...]
    files: tuple[str, ...]
    trees: tuple[str, ...]
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def showing(self, names: Collection[str]) -> Runtime:
        """Itself with these of its packages, and no other."""
        packages = {name: folders for name, folders in self.packages.items() if name in names}
        shown = [folder for folders in packages.values() for folder in folders]
        return replace(self, trees=(*self.trees, *shown), packages=packages)


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
    # Another interpreter may have other versions of them.
    packages = _packages() if real == os.path.realpath(sys.executable) else {}
    return Runtime(real, stdlib, tuple(libraries), tuple(sorted(set(files))), tuple(sorted(set(trees))), packages)


def _packages() -> dict[str, tuple[str, ...]]:
    found = {}
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            folder = os.path.dirname(os.path.realpath(spec.origin))
            found[name] = tuple(path for path in (folder, f"{folder}.libs") if os.path.isdir(path))
    return found
