"""First code of a new process: read the orders, close every other descriptor, put up the walls, play the role.

It is passed to the interpreter as text (`python -c`), with the descriptor or the path of the orders as its argument.
"""

from __future__ import annotations

import json
import marshal
import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def packages_finder(folders: dict[str, str]) -> Any:
    """Imports these packages from their folders: what else is installed beside them cannot be seen."""
    from importlib.util import spec_from_file_location

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            if name not in folders:
                return None
            folder = folders[name]
            return spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])

    return Finder


def boot() -> None:
    """Nothing untrusted runs before the last line."""
    source = sys.argv[1]
    with open(int(source) if source.isdigit() else source, "rb") as stream:
        orders = json.load(stream)
    # A guest of WebAssembly has no pipes: it is given the path of a file for the verdict.
    fds = [fd if isinstance(fd, int) else os.open(fd, os.O_WRONLY | os.O_CREAT) for fd in orders["fds"]]
    for name in ("raylora", "raylora.tasks.sandbox", "raylora.tasks.sandbox.inside"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    roles = {}
    for name, text in orders["modules"].items():
        module = types.ModuleType(f"raylora.tasks.sandbox.inside.{name}")
        sys.modules[module.__name__] = module
        code = marshal.loads(bytes.fromhex(text)) if orders["compiled"] else compile(text, module.__name__, "exec")
        exec(code, module.__dict__)
        roles[name] = module
    if "confine" in roles:
        kept = sorted({0, 1, 2, *fds})
        for low, high in zip(kept, [*kept[1:], 65536], strict=True):
            os.closerange(low + 1, high)
        roles["confine"].confine(orders["policy"])
    if orders["packages"]:
        sys.meta_path.append(packages_finder(orders["packages"]))
    sys.setrecursionlimit(orders["recursion"])
    sys.set_int_max_str_digits(0)
    sys.argv[:] = [""]
    roles[orders["role"]].run(orders["payload"], *fds)


boot()
