"""Taking the program out of what a model wrote. Pure: nothing here runs anything."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress

from raylora.tasks.sandbox.program import parse

# A fence that is never closed runs to the end: a model may stop, or be stopped, before it closes it.
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"\[BEGIN\][ \t]*\n?(.*?)(?:\[DONE\]|\Z)", re.DOTALL)
_PYTHON = {"", "python", "py", "python3", "py3", "pycon", "ipython"}
_FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
_BEGINS = re.compile(r"(?:import|from|def|async def|class|@)\b|@")


def fenced_blocks(answer: str) -> list[str]:
    """Python blocks of a Markdown text in their order; fences of other languages are left out."""
    found = [match for match in _FENCE.finditer(answer) if match.group(2).lower() in _PYTHON]
    return [textwrap.dedent(match.group(3)) for match in found]


def defined_names(code: str) -> set[str]:
    """Functions, classes and variables that the top level of `code` defines; empty where it does not parse."""
    tree = _parse(code)
    names: set[str] = set()
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def extract_program(answer: str, *, names: Sequence[str], prompt: str = "") -> str:
    """The program in a model's answer.

    Looked for in this order: blocks between fences, text between `[BEGIN]` and `[DONE]`, code that stands bare
    between sentences, and, where there is a `prompt` that ends in an open function, the answer as that
    function's body. The first of several blocks that defines one of `names` counts, with the imports and the
    helpers of the blocks before it.

    Args:
        answer: what the model wrote after the prompt.
        names: what the program has to define, the most important first.
        prompt: code that the answer goes on from, such as HumanEval's signature and docstring. Its imports and
            helpers go before an answer that brings the whole function.

    Returns:
        source; the answer as it is where no program is found in it (it then fails as it should).
    """
    answer = answer.replace("\r\n", "\n")
    blocks = fenced_blocks(answer) or [match.group(1) for match in _MARKED.finditer(answer)]
    if not blocks and "[DONE]" in answer:
        blocks = [answer.partition("[DONE]")[0]]
    for index, block in enumerate(blocks):
        code = _valid_part(block)
        if _defines(code, names):
            return _with_context(prompt, [*_definitions(blocks[:index]), code], names)
    if not blocks:
        code = _valid_part(_from_first_code(answer))
        if _defines(code, names):
            return _with_context(prompt, [code], names)
    if prompt:
        for body in (*blocks, answer):
            whole = complete(prompt, body)
            if whole is not None:
                return whole
    return "\n".join(blocks) if blocks else prompt + answer


def complete(prompt: str, body: str) -> str | None:
    """`prompt` and as much of `body` as makes it a program; None where no part does.

    The body ends before the first line that leaves the function, comments and blank lines aside: what a model
    writes after that is another function or a usage example. Lost indentation of the first line, or of all, is
    put back.
    """
    body = body.strip("\n").rstrip()
    first, _, rest = body.partition("\n")
    stripped = ["    " + first + "\n" + rest, textwrap.indent(body, "    ")]
    attempts = [_function_body(text) for text in ([body] if first[:1].isspace() else stripped)]
    wholes = [
        prompt.rstrip(" \t") + ("" if prompt.endswith("\n") else "\n") + kept for kept in attempts if kept.strip()
    ]
    return max((whole for whole in wholes if _parse(whole) is not None), key=len, default=None)


def _function_body(text: str) -> str:
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.strip() and not line[0].isspace() and not line.startswith(("#", ")", "]", "}")):
            if index == 0:
                return ""
            # A text within triple quotes may touch the margin: the function goes on where it does not end before.
            if _parse("def body():\n" + "\n".join(lines[:index])) is not None:
                return "\n".join(lines[:index]) + "\n"
    return text + "\n"


def context_of(prompt: str, names: Iterable[str]) -> str:
    """The imports and helpers of a prompt: its top level without the functions called `names`.

    A prompt whose last function has only its signature is closed with `pass` first; empty where it is no code.
    """
    tree = _parse(prompt) or _parse(prompt.rstrip() + "\n    pass\n")
    if tree is None:
        return ""
    left_out = set(names)
    kept = [node for node in tree.body if getattr(node, "name", None) not in left_out]
    return "\n".join(ast.unparse(node) for node in kept)


def _with_context(prompt: str, parts: list[str], names: Sequence[str]) -> str:
    context = context_of(prompt, [*names, *(name for part in parts for name in defined_names(part))])
    program = "\n".join(part.rstrip() for part in [context, *parts] if part.strip()) + "\n"
    futures = _FUTURE.findall(program)
    return "".join(futures) + _FUTURE.sub("", program) if futures else program


def _definitions(blocks: Sequence[str]) -> list[str]:
    """Imports, functions, classes and constants of the blocks that parse; what they would run is left out."""
    kept: list[str] = []
    wanted = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)
    for block in blocks:
        tree = _parse(block)
        for node in tree.body if tree else []:
            # Deeply nested code parses and cannot be written again.
            with suppress(RecursionError):
                kept += [ast.unparse(node)] if isinstance(node, wanted) else []
    return kept


def _defines(code: str, names: Sequence[str]) -> bool:
    defined = defined_names(code)
    return bool(defined) if not names else names[0] in defined


def _from_first_code(text: str) -> str:
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if _BEGINS.match(line) and _parse(line.rstrip() + ("\n    pass" if line.rstrip().endswith(":") else "")):
            return "\n".join(lines[index:])
        if line.startswith(("def ", "class ", "@", "async def ")):
            return "\n".join(lines[index:])
    return ""


def _valid_part(code: str) -> str:
    """The longest beginning of `code`, in whole lines, that parses."""
    code = _without_prompts(code)
    lines = code.splitlines()
    while lines:
        try:
            _parse_quietly("\n".join(lines))
        except SyntaxError as error:
            # Where the error is told, everything from its line on can go at once; else one line.
            cut = (error.lineno or len(lines)) - 1
            lines = lines[: min(max(cut, 0), len(lines) - 1)]
        except (ValueError, RecursionError, MemoryError):
            return ""
        else:
            return "\n".join(lines) + "\n"
    return ""


def _without_prompts(code: str) -> str:
    if not code.lstrip().startswith(">>> "):
        return code
    return "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ")))


def _parse(code: str) -> ast.Module | None:
    try:
        return _parse_quietly(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parse_quietly(code: str) -> ast.Module:
    # A model's odd escapes are no news for the person who measures it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse(code)
