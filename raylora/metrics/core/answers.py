r"""The final answer of a solution, and LaTeX in one spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

_ANSWER = re.compile(r"(?:####|(?:final\s+)?answer\**\s*(?:is|:|=)(?:\s*:)?)(?:\*\*)?\s*", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad\b|~|\s+")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi))(?:\s|\\[,;:!])*"
    r"(?:\\(?:text|textrm|mbox|mathrm)\s*\{[^{}]*\}|(?<![A-Za-z\\])\s[A-Za-z. ]+)"
    r"(?:\^\{?\d\}?)?\s*$"
)
_NAMED = re.compile(r"^\s*[A-Za-z](?:\([A-Za-z]\))?\s*(?:=|\\in(?![a-z]))\s*(?!.*=)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_WORD = re.compile(r"[^\W\d_]{2,}")
_LONGEST_DECIMAL = 60
_PLAIN_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
_SCALED = re.compile(rf"({_PLAIN_NUMBER.pattern})\\(?:times|cdot)10\^\{{?([+-]?\d{{1,3}})\}}?")
_MIXED = re.compile(r"\s*(-?\d+)\s+(\d+)\s*/\s*(\d+)\s*")
_BASED = re.compile(r"([\da-zA-Z]+)_\{?(\d{1,2})\}?")
_SET_BUILDER = re.compile(r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?::|\\mid(?![a-z])|\|)\s*(.*)\s*\\\}")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_SAID = re.compile(r".*\b(?:is|are|equals)\b:?\s+(.*\d.*)")
_SOME_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_JOINT = re.compile(r"\s*(?:,\s*)?(?:and|or)?\s*")
_ABOUT = re.compile(r"^\s*(?:\\approx|\u2248|approximately|about)\s*")
_CLOCK = re.compile(r"\d\s*(?:\\text\s*\{)?\s*([ap])\.?\s?m\b", re.IGNORECASE)
_CHOSEN = re.compile(r"\(?([A-Z])[).:]\s*\S.*")
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
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00bc": "\\frac{1}{4}",
        "\u00bd": "\\frac{1}{2}",
        "\u00be": "\\frac{3}{4}",
        **dict.fromkeys("\u20ac\u00a3\u00a5", ""),
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
    what the last line says. Formulas with nothing but `and` or a comma between them are one answer.
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
            return _together(line, inside, range(len(inside)))
        if line:
            # A sentence ends the answer: "The answer is 5. I hope it is correct."
            return re.split(r"\.(?:\s|$)", line)[0].strip("*")
    formulas = list(_FORMULA.finditer(text))
    if formulas:
        return _together(text, formulas, range(len(formulas) - 1, -1, -1))
    lines = text.strip().splitlines()
    return _said(lines[-1]) if lines else ""


def _said(line: str) -> str:
    """What a line without formulas says: its last words in bold, what follows its last `is`, or its one number."""
    if re.search(r"\\(?!\$)", line):
        return line
    bold = _BOLD.findall(line)
    if bold:
        return str(bold[-1])
    found = _SAID.fullmatch(line.rstrip(". "))
    if found:
        return found.group(1)
    numbers = _SOME_NUMBER.findall(line)
    return numbers[0].rstrip(",") if len(numbers) == 1 and len(_WORD.findall(line)) > 2 else line


def stated_answer(text: str) -> str:
    """The answer of a row: `final_answer` of a whole solution, and what it is otherwise."""
    return final_answer(text) if boxed(text) is not None or _ANSWER.search(text) else text


def _content(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group is not None)


def _together(text: str, formulas: Sequence[re.Match[str]], order: Sequence[int]) -> str:
    """The first formula in this order, with those that nothing but a comma or an `and` parts from it."""
    told = [formulas[order[0]]]
    for place in order[1:]:
        first, second = sorted((told[-1], formulas[place]), key=lambda found: found.start())
        gap = text[first.end() : second.start()]
        if not gap.strip() or not _JOINT.fullmatch(gap) or "=" in first.group() + second.group():
            break
        told.append(formulas[place])
    return ", ".join(_content(found) for found in sorted(told, key=lambda found: found.start()))


def half_of_day(answer: str) -> str:
    """`a` or `p` of a time on the clock such as `6:00 p.m.`; empty for anything else."""
    found = _CLOCK.search(answer)
    return found.group(1).lower() if found else ""


def chosen_letter(answer: str) -> str:
    """The letter of an option that is told with its text, as in `(B) 12`; empty for anything else."""
    found = _CHOSEN.fullmatch(answer)
    return found.group(1) if found else ""


def spelt(answer: str) -> str:
    r"""LaTeX in one spelling: no outer `$`, units, spaces, `\left`, `\dfrac`, per cent or degree signs; no `x =`.

    Signs that are one character, such as a root, become LaTeX, and repeating decimals fractions.
    """
    text = _ABOUT.sub("", answer.strip().strip("$").strip().rstrip(".").replace("\n", " "))
    text = re.sub(r",\\!\s*|\{,\}|\\!", "", text.translate(_SIGNS)).replace("\\left", "").replace("\\right", "")
    text = _REPEATING.sub(_fraction, _ROOT.sub(_root, text)).replace("\\varnothing", "\\emptyset")
    text = re.sub(r"\\[dtc]frac", r"\\frac", text).replace("\\$", "")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°|\\?%", "", text)
    # Once more: a unit may stand in the text command that the number stands in.
    text = _UNIT.sub("", _WRAPPED.sub(r"\1", _UNIT.sub("", text)))
    mixed, builder = _MIXED.fullmatch(text), _SET_BUILDER.fullmatch(text.strip())
    if mixed:
        text = rf"{mixed.group(1)}\frac{{{mixed.group(2)}}}{{{mixed.group(3)}}}"
    elif builder and builder.group(1) in builder.group(2):
        text = builder.group(2)
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
    r"""The value of a plain decimal number, also times a power of ten (`6.02\times 10^{23}`); None otherwise."""
    bare = re.sub(r"\s+", "", text)
    scaled = _SCALED.fullmatch(bare)
    digits, power = scaled.groups() if scaled else (bare, "0")
    if not _PLAIN_NUMBER.fullmatch(digits) or len(digits) > 400:
        return None
    try:
        return Decimal(digits).scaleb(int(power))
    except InvalidOperation:
        return None


def based_number(text: str) -> tuple[str, str] | None:
    """Digits and base of a number with its base below it, such as `1011_2`; None for anything else."""
    found = _BASED.fullmatch(re.sub(r"\s+", "", text))
    return (found.group(1).lstrip("0").upper(), found.group(2)) if found else None


def is_point(text: str) -> bool:
    """Whether it is several values in parentheses, whose order counts; a set's is `is_set`."""
    return text.startswith("(") and text.endswith(")") and "," in text


def is_set(text: str) -> bool:
    """Whether it is values in braces."""
    return text.startswith("\\{") and text.endswith("\\}")
