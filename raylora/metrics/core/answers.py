r"""The final answer of a solution, and LaTeX in one spelling."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_ANSWER = re.compile(r"(?:####|(?:final\s+)?answer\**\s*(?:is|:|=)(?:\s*:)?)(?:\*\*)?\s*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad\b|~|\s+")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?<=[\d})])(?:\s|\\[,;:!])*(?:\\(?:text|textrm|mbox|mathrm)\s*\{[^{}]*\}|(?<![A-Za-z\\])\s[A-Za-z. ]+)"
    r"(?:\^\{?\d\}?)?\s*$"
)
_NAMED = re.compile(r"^\s*[A-Za-z](?:\([A-Za-z]\))?\s*(?:=|\\in(?![a-z]))\s*(?!.*=)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_WORD = re.compile(r"[^\W\d_]{2,}")
_LONGEST_DECIMAL = 60
_PLAIN_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_ROOT = re.compile(r"\u221a\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z]))")
_SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "\u03c0": "\\pi ",
        "\u221e": "\\infty ",
        "\u00d7": "\\times ",
        "\u00b7": "\\cdot ",
        "\u2205": "\\emptyset ",
    }
)


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` or `\fbox{...}` holds, braces in balance; None without one."""
    starts = [found.end() for found in re.finditer(r"\\f?boxed\s*\{|\\fbox\s*\{", text)]
    for start in reversed(starts):
        depth = 1
        for place in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return text[start:place]
    bare = re.findall(r"\\boxed\s+(\S+)", text)
    return bare[-1].strip("$.") if bare else None


def final_answer(text: str) -> str:
    r"""The answer at the end of a solution.

    The last `\boxed{...}`, else what follows the last `answer is` or `####` on its line, else the last formula, else
    the last line.
    """
    held = boxed(text)
    if held is not None:
        return held
    marks = list(_ANSWER.finditer(text))
    if marks:
        tail = text[marks[-1].end() :]
        formula = _FORMULA.match(tail.lstrip())
        if formula:
            return _content(formula)
        line = tail.strip().partition("\n")[0]
        inside = list(_FORMULA.finditer(line))
        if inside:
            return _content(inside[0])
        if line:
            # A sentence ends the answer: "The answer is 5. I hope it is correct."
            return re.split(r"\.(?:\s|$)", line)[0].removesuffix("**")
    formulas = list(_FORMULA.finditer(text))
    if formulas:
        return _content(formulas[-1])
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def stated_answer(text: str) -> str:
    """The answer of a row: `final_answer` of a whole solution, and what it is otherwise."""
    return final_answer(text) if boxed(text) is not None or _ANSWER.search(text) else text


def _content(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None)


def spelt(answer: str) -> str:
    r"""LaTeX in one spelling: no outer `$`, units, spaces, `\left`, `\dfrac`, per cent or degree signs; no `x =`.

    Signs that are one character, such as a root, become LaTeX, and repeating decimals fractions.
    """
    text = answer.strip().strip("$").strip().rstrip(".").replace("\n", " ")
    text = re.sub(r",\\!\s*|\{,\}|\\!", "", text.translate(_SIGNS)).replace("\\left", "").replace("\\right", "")
    text = _REPEATING.sub(_fraction, _ROOT.sub(_root, text)).replace("\\varnothing", "\\emptyset")
    text = re.sub(r"\\[dtc]frac", r"\\frac", text).replace("\\$", "")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°|\\?%", "", text)
    text = _UNIT.sub("", text)
    text = _WRAPPED.sub(r"\1", text)
    text = _NAMED.sub("", text)
    # In brackets a plain comma parts the places of a point, a set or an interval.
    if not re.search(r"[(\[{]", text):
        text = _THOUSANDS.sub("", text)
    text = _SPACES.sub(" ", text)
    return text.strip().rstrip(".")


def _root(found: re.Match[str]) -> str:
    return f"\\sqrt{{{next(filter(None, found.groups()), '')}}}"


def _fraction(found: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as `\frac{15}{90}`."""
    whole, fixed, repeated = found.groups()
    if len(found.group()) > _LONGEST_DECIMAL:
        return found.group()
    # What repeats counts once, over as many nines as it has digits.
    above = int(whole + fixed + repeated) - int(whole + fixed or "0")
    return rf"\frac{{{above}}}{{{10 ** len(fixed) * (10 ** len(repeated) - 1)}}}"


def squeezed(text: str) -> str:
    """For comparing letter by letter: without spaces, and words without case."""
    text = re.sub(r"\s+", "", text)
    choice = re.fullmatch(r"\(?([A-Za-z])\)", text)
    return (choice.group(1) if choice else text).casefold() if is_words(text) or choice else text


def is_words(text: str) -> bool:
    r"""Whether it is a word or several, such as `Tuesday`, and no formula."""
    bare = text.strip(" .()\"'")
    return bool(_WORD.search(bare)) and not re.search(r"[\\^_=+*/<>{}\d|]", bare)


def plain_number(text: str) -> Decimal | None:
    """The value of a plain decimal number; None for anything else."""
    bare = re.sub(r"\s+", "", text)
    if not _PLAIN_NUMBER.fullmatch(bare) or len(bare) > 400:
        return None
    try:
        return Decimal(bare)
    except InvalidOperation:
        return None
