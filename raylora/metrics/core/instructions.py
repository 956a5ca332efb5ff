"""The 25 kinds of instruction of IFEval that a program can check (Zhou et al., 2023, arXiv:2311.07911).

A check takes the response and the instruction's arguments by the names that the data set gives them, and says whether
the response follows it. Relations are `at least` and `less than`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping

from raylora.metrics.core.missing import library

_WORD = re.compile(r"\w+")
_CAPITAL_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$", re.IGNORECASE)
_PARTS = re.compile(r"\s?\*\*\*\s?")
_ABBREVIATIONS = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|No|Inc|Ltd|Co|e\.g|i\.e|[A-Z])\.(?=\s|[a-z])|\b[ap]\.m\.(?=\s+[a-z])|(?<=\d)\.(?=\d)"
)
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*(?=\s|$)")
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows(kind: str, response: str, arguments: Mapping[str, object]) -> bool:
    """Whether a response follows an instruction; an empty one follows none.

    Raises:
        KeyError: the kind is unknown, or an argument is missing.
    """
    return bool(response.strip()) and CHECKS[kind](response, **arguments)


def loose_versions(response: str) -> list[str]:
    """The response without its first line, its last line or both, each with and without asterisks, `(8,)`."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    versions = [response, *cut]
    return [*versions, *(version.replace("*", "") for version in versions)]


def sentences(text: str) -> int:
    """How many sentences a text has; what is left after the last stop is one too."""
    pieces = _SENTENCE_END.split(_ABBREVIATIONS.sub("_", " ".join(text.split())))
    return sum(bool(_WORD.search(piece)) for piece in pieces)


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language that a text is in, by langdetect; None where it cannot tell."""
    langdetect = library("langdetect", "ifeval")
    # It guesses by random samples.
    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


def _compare(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


def _capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    capital = sum(word.isupper() for word in _CAPITAL_WORD.findall(response))
    return _compare(capital, capital_relation, capital_frequency)


def _in_english(response: str) -> bool:
    return language_of(response) in {"en", None}


def _english_capital(response: str) -> bool:
    # Languages are told apart by how they are usually written.
    return response.isupper() and _in_english(response.lower())


def _english_lowercase(response: str) -> bool:
    return response.islower() and _in_english(response)


def _repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    if len(parts) > 2 and not parts[0]:
        parts = parts[1:]
    if len(parts) > 2 and not parts[-1]:
        parts = parts[:-1]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _number_placeholders(response: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def _postscript(response: str, postscript_marker: str) -> bool:
    letters = [letter for letter in postscript_marker.lower() if letter.isalpha()]
    if letters and set(letters) <= {"p", "s"}:
        marker = r"\s?".join(rf"{letter}\.?" for letter in letters)
    else:
        marker = re.escape(postscript_marker.lower())
    return re.search(rf"(?m)^\W*{marker}(?!\w)", response.lower()) is not None


def _constrained_response(response: str) -> bool:
    return any(option in response for option in _CONSTRAINED)


def _json_format(response: str) -> bool:
    try:
        json.loads(_FENCE.sub("", response.strip()))
    except (ValueError, RecursionError):
        return False
    return True


def _multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def _number_bullet_lists(response: str, num_bullets: int) -> bool:
    return len(re.findall(r"(?m)^\s*(?:\*(?!\*)|-).*\S", response)) == num_bullets


def _number_highlighted_sections(response: str, num_highlights: int) -> bool:
    bold = re.findall(r"\*\*([^\n*]+)\*\*", response)
    light = re.findall(r"(?<!\*)\*([^\n*]+)\*(?!\*)", response)
    return sum(bool(text.strip()) for text in [*bold, *light]) >= num_highlights


def _title(response: str) -> bool:
    return any(title.strip("<> ") for title in re.findall(r"<<[^\n]+>>", response))


def _existence(response: str, keywords: list[str]) -> bool:
    return all(keyword.lower() in response.lower() for keyword in keywords)


def _forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"(?i)(?<!\w){re.escape(word)}(?!\w)", response) for word in forbidden_words)


def _frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(response.lower().count(keyword.lower().strip()), relation, frequency)


def _letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compare(Counter(response.lower())[letter.lower()], let_relation, let_frequency)


def _response_language(response: str, language: str) -> bool:
    return language_of(response) in {language, None}


def _nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = [part.strip() for part in response.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs or nth_paragraph > len(paragraphs):
        return False
    found = _CAPITAL_WORD.search(paragraphs[nth_paragraph - 1].split()[0])
    return found is not None and found.group().lower() == first_word.lower()


def _number_paragraphs(response: str, num_paragraphs: int) -> bool:
    parts = _PARTS.split(response)
    # A divider may open and close the text; between two there must be a paragraph.
    inner = parts[int(not parts[0].strip()) : len(parts) - int(not parts[-1].strip())]
    return all(part.strip() for part in inner) and len(inner) == num_paragraphs


def _number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    return _compare(sentences(response), relation, num_sentences)


def _number_words(response: str, num_words: int, relation: str) -> bool:
    return _compare(len(_WORD.findall(response)), relation, num_words)


def _no_comma(response: str) -> bool:
    return "," not in response


def _end_checker(response: str, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "combination:repeat_prompt": _repeat_prompt,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:json_format": _json_format,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:title": _title,
    "keywords:existence": _existence,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "punctuation:no_comma": _no_comma,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
}
