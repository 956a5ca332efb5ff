"""`raylora ...`: the command line.

A command is a module of this package, a group of commands (`bench`, `models`) a package in it, found by its file:
`bench/convergence_report.py` is `raylora bench convergence-report`. A module has `HELP`, one line; `run(options)`,
which returns nothing or the exit status; and `add_arguments(parser)`, where it takes any. A name that begins with _
is no command.

Modules import what does the work inside `run`: `raylora --help` loads neither torch nor ray.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from errno import EACCES, EDQUOT, EISDIR, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS
from itertools import islice
from types import ModuleType

from clusters.errors import ClusterError
from raylora import __version__
from raylora.cli._output import check_json
from raylora.errors import RunFailed, UserError

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
# Errors that lie with a file or folder, not with the program.
_OF_THE_PLACE = (EACCES, EPERM, EROFS, EISDIR, ENOTDIR, ENAMETOOLONG, ENOSPC, EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status.

    0: what was asked is done. 1: it failed (a submitted job, an error of the program). 2: a user's mistake, told in
    one line. 130: Ctrl-C.
    """
    options = _parse(make_parser(), arguments)
    try:
        check_json(options)
        return options.run(options) or DONE
    except RunFailed as error:
        print(f"raylora: {error}", file=sys.stderr)
        return FAILED
    except (UserError, ClusterError) as error:
        print(f"raylora: {error}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:
        # The reader has gone, as `head` does. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in _OF_THE_PLACE or error.filename is None:
            raise
        print(f"raylora: {error.filename}: {error.strerror}; use a place that can be read and written", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interrupt:
        print(f"raylora: {str(interrupt) or 'interrupted'}", file=sys.stderr, flush=True)
        if arguments is None:
            # The command's own process: what libraries do at its end may take longer than who stopped it will wait.
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """As `parse_args`; a list of values may be given in parts, with flags between them, which argparse refuses."""
    options, left = parser.parse_known_args(arguments)
    if options.listed is not None and not any(word.startswith("-") for word in left):
        getattr(options, options.listed).extend(left)
    elif left:
        flags = list(options.parser._option_string_actions)
        near = (flag for word in left for flag in get_close_matches(word.partition("=")[0], flags, n=1))
        meant = "".join(f"; did you mean {flag}?" for flag in islice(near, 1))
        options.parser.error(f"unrecognized arguments: {' '.join(left)}{meant}")
    return options


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="raylora", description="Finds the LoRA recipe for a model and a task.")
    parser.add_argument("--version", action="version", version=f"raylora {__version__}")
    _add_commands(parser, sys.modules[__name__])
    return parser


def _add_commands(parser: argparse.ArgumentParser, package: ModuleType) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(package.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        below = commands.add_parser(found.name.replace("_", "-"), help=module.HELP, description=module.HELP)
        if found.ispkg:
            _add_commands(below, module)
            continue
        if hasattr(module, "add_arguments"):
            module.add_arguments(below)
        lists = [action.dest for action in below._get_positional_actions() if action.nargs in ("*", "+")]
        below.set_defaults(run=module.run, listed=lists[-1] if lists else None, parser=below)
