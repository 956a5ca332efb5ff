"""Numbers in running text, as people and LaTeX write them."""

from __future__ import annotations

import re
import unicodedata
from decimal import Context, Decimal
from fractions import Fraction

# What groups digits by three: commas (LaTeX's too), thin, no-break and plain spaces, apostrophes, underscores.
_SEPARATORS = (r",\\!", r"\{,\}", ",", r"\\[,:;]", "[ \u00a0\u2009\u202f]", "['\u2019]", "_")
_GROUPED = "|".join(rf"(?:{separator}\d{{3}})+" for separator in _SEPARATORS)
# Points group where a comma follows them or they come twice: `1.234,5` and `1.234.567`.
_POINTED = r"(?<![\d.])[1-9]\d{0,2}(?:(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})(?![\d.,]\d|\d)"
# In India thousands are three digits and what is above them two: `1,00,000`.
_INDIAN = r"\d{1,2}(?:,\d{2})+,\d{3}(?![,\d])(?:\.\d+)?"
_DECIMAL = rf"(?:{_POINTED}|{_INDIAN}|(?:\d{{1,3}}(?:{_GROUPED})(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"
_SIMPLE = r"(?:\d+(?:\.\d+)?)"
_MINUS = "[-\u2212\u2013\ufe63\uff0d]"
_CURRENCY = r"(?:\\?\$|[€£¥₹₽]|\b(?:Rs\.?|USD|EUR|GBP|INR))\s?"
# A minus sign counts only where nothing stands before it that it could be subtracted from: "5-3" ends in 3.
_SIGN = rf"(?:(?<![\w)\]}}])(?P<minus>{_MINUS})(?:{_CURRENCY})?|{_CURRENCY}(?P<inner>{_MINUS})?)?"
_SCALE = rf"(?:[eE](?P<e>[+-]?\d{{1,3}})(?!\w)|\s?[\u00d7*x]\s?10\s?\^\s?\{{?(?P<ten>{_MINUS}?\d{{1,3}})\}}?)"
_NUMBER = re.compile(
    rf"""
      (?:\^|(?<=[A-Za-z])_)\s?\{{?{_MINUS}?\d+\}}?  # a power of a unit, an index: no number
    | {_SIGN}(?:
        (?:(?P<w1>\d+)\s?)?\\frac\s?\{{(?P<n1>{_MINUS}?{_SIMPLE})\}}\s?\{{(?P<d1>{_SIMPLE})\}}
      | (?:(?P<w2>\d+)\s?)?\\frac\s?(?P<n2>\d)\s?(?P<d2>\d)
      | (?:(?P<w3>\d+)\s)?(?<![/\d])(?P<n3>{_SIMPLE})\s?[/\u2044]\s?(?P<d3>{_SIMPLE})(?!\s?/|\d)
      | (?P<base>{_SIMPLE})\s?\^\s?\{{?(?P<power>{_MINUS}?\d{{1,2}})\}}?(?!\d)
      | (?P<plain>{_DECIMAL}){_SCALE}?
    )
    """,
    re.VERBOSE,
)
_COMMAND = re.compile(r"\\(?!frac)[A-Za-z]+")
_FRACTIONS = {
    code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F))
}
_PRECISE = Context(prec=60)
_MOST_DIGITS = 400


def last_number(text: str) -> Decimal | None:
    """The last number in `text`: `"$1,250.00"` is 1250, `"-$3"` is -3, `"1/2"` is 0.5; None where there is none.

    Digits that are glued to a letter before them (`H2O`) count only where there are no others.
    """
    best: Decimal | None = None
    glued: Decimal | None = None
    text = _plain(text)
    for found in _NUMBER.finditer(text):
        number = _value(found)
        if number is None:
            continue
        before = text[found.start() - 1 : found.start()]
        if before.isascii() and before.isalpha():
            glued = number
        else:
            best = number
    return glued if best is None else best


def final_number(text: str, mark: str | None) -> Decimal | None:
    """The number after the last `mark` where there is one, else the last number of the text; None without any.

    After the mark the first line counts, so that text which runs on past the answer does not change it.
    """
    if mark:
        _, found, tail = text.rpartition(mark)
        number = last_number(tail.strip().partition("\n")[0]) if found else None
        if number is not None:
            return number
    return last_number(text)


def _plain(text: str) -> str:
    r"""`text` with `½` as ` 1/2`, and of LaTeX's commands only `\frac`."""
    text = text.translate(_FRACTIONS).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.replace("\\times", "\u00d7").replace("\\cdot", "\u00d7")
    return _COMMAND.sub(" ", text)


def _value(found: re.Match[str]) -> Decimal | None:
    parts = found.groupdict()
    if len(found.group()) > _MOST_DIGITS:
        return None
    size: Decimal | None
    if parts["plain"] is not None:
        exponent = parts["e"] or parts["ten"]
        size = _decimal(parts["plain"])
        if exponent:
            size = size.scaleb(_whole(exponent), _PRECISE)
    elif parts["base"] is not None:
        size = _power(parts["base"], _whole(parts["power"]))
    else:
        size = next((_fraction(parts, i) for i in "123" if parts[f"d{i}"] is not None), None)
    if size is None:
        return None
    return -size if parts["minus"] or parts["inner"] else size


def _decimal(text: str) -> Decimal:
    if re.fullmatch(_POINTED, text):
        text = text.replace(".", "").replace(",", ".")
    return Decimal(re.sub(r"[^\d.]", "", text))


def _whole(text: str) -> int:
    return int(re.sub(_MINUS, "-", text))


def _power(base: str, exponent: int) -> Decimal:
    if exponent < 0 and not float(base):
        return Decimal(base)
    return _PRECISE.power(Decimal(base), exponent)


def _fraction(parts: dict[str, str | None], which: str) -> Decimal | None:
    whole, above, below = (parts[f"{name}{which}"] for name in "wnd")
    assert above is not None and below is not None
    numerator, denominator = Fraction(re.sub(_MINUS, "-", above)), Fraction(below)
    if not denominator:
        return None
    # "2 1/2" is two and a half; "5 16/2" is five, and then eight.
    if whole is not None and 0 < numerator < denominator:
        numerator += int(whole) * denominator
    value = numerator / denominator
    return _PRECISE.divide(Decimal(value.numerator), Decimal(value.denominator))
