from __future__ import annotations

import pytest

from raylora.tasks.code.answer import complete, context_of, defined_names, extract_program, fenced_blocks

PROMPT = (
    "from typing import List\n\n\ndef helper(x):\n    return x\n\n\n"
    'def add(a: int, b: int) -> int:\n    """ Adds.\n    >>> add(1, 2)\n    3\n    """\n'
)


def run(code: str, call: str = "add(1, 2)") -> object:
    names: dict[str, object] = {}
    exec(code, names)
    return eval(call, names)


@pytest.mark.parametrize(
    "answer",
    [
        "    return a + b\n",
        "    return a + b\n\n\ndef main():\n    broken(\n",
        "    return a + b\n\n# Example\nprint(add(1, 2))\n",
        "    return a + b\nif __name__ == '__main__':\n    print(1)",
        "return a + b",
        "c = a + b\n    return c",
        "total = a\ntotal += b\nreturn total",
        "\n    # sums\n    return a + b\n```\nThat is all.",
        "def add(a, b):\n    return a + b\n",
        "Here you are:\n\ndef add(a, b):\n    return a + b\n\nIt adds the two numbers.",
        "from math import fsum\n\ndef add(a: List[int], b):\n    return int(fsum([a, b]))",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "```\ndef add(a, b):\n    return a + b\n```\nTry it:\n```python\nprint(add(1, 2))\n```",
        "Sure!\n```py\nreturn a + b\n```",
        "```python\n    return a + b\n```",
        "```python\ndef add(a, b):\n    return a + b",
        "~~~python\ndef add(a, b):\n    return a + b\n~~~",
        "1. First:\n   ```python\n   def add(a, b):\n       return a + b\n   ```",
        "```bash\npip install x\n```\n```python\ndef add(a, b):\n    return a + b\n```",
        "```\nimport math\nONE = 1\nadd(0, 0)\n```\n```\ndef add(a, b):\n    return int(math.fabs(a)) + b * ONE\n```",
        "```python\nfrom __future__ import annotations\ndef add(a: Unknown, b):\n    return helper(a) + b\n```",
        "```python\r\ndef add(a, b):\r\n    return a + b\r\n```",
    ],
)
def test_a_program_is_found_in_an_answer_to_a_signature(answer: str) -> None:
    assert run(extract_program(answer, names=["add"], prompt=PROMPT)) == 3


@pytest.mark.parametrize(
    "answer",
    [
        "def add(a, b):\n    return a + b\n[DONE]\nand more",
        "[BEGIN]\ndef add(a, b):\n    return a + b\n[DONE]",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "def add(a, b):\n    return a + b\n\nThe function above adds.\n",
        "class Adder:\n    pass\n\ndef add(a, b):\n    return a + b",
        "```\nadd = lambda a, b: a + b\n```",
        "import os\n\nadd = int.__add__",
        "```\n>>> def add(a, b):\n...     return a + b\n>>> add(1, 2)\n3\n```",
    ],
)
def test_a_program_is_found_in_an_answer_to_a_sentence(answer: str) -> None:
    assert run(extract_program(answer, names=["add"])) == 3


def test_the_first_block_that_defines_the_name_counts() -> None:
    answer = "```python\ndef add(a, b): return a + b\n```\nor\n```python\ndef add(a, b): return 0\n```"
    assert run(extract_program(answer, names=["add"])) == 3


def test_an_answer_without_a_program_stays_as_it_is() -> None:
    assert extract_program("I cannot.", names=["add"]) == "I cannot."
    assert extract_program("", names=["add"]) == ""


def test_an_empty_completion_is_no_program() -> None:
    assert complete(PROMPT, "") is None
    assert complete(PROMPT, "\n\n") is None


def test_a_text_at_the_margin_within_quotes_does_not_end_a_function() -> None:
    body = '    x = """\nmargin\n"""\n    return a + b\n\nprint(1)\n'
    whole = complete(PROMPT, body)
    assert whole is not None
    assert run(whole) == 3


def test_the_context_of_a_prompt_is_all_but_the_function() -> None:
    assert defined_names(context_of(PROMPT, ["add"])) == {"helper"}
    assert "from typing import List" in context_of(PROMPT, ["add"])
    assert context_of("def f(x):\n", ["f"]) == ""
    assert context_of("no code at all", ["f"]) == ""


def test_fences_of_other_languages_are_left_out() -> None:
    assert fenced_blocks("```json\n{}\n```\n```Python\nx\n```") == ["x\n"]


@pytest.mark.parametrize(
    "answer", ["x = " + "-" * 3000 + "1", "(" * 5000, "f" + "(1)" * 3000, "\x00", "\ud800", "```\n" * 999]
)
def test_an_answer_that_no_parser_likes_is_no_error(answer: str) -> None:
    assert isinstance(extract_program(answer, names=["add"], prompt=PROMPT), str)
    assert isinstance(extract_program(f"```\n{answer}\n```\n```\ndef add(a, b): pass\n```", names=["add"]), str)


def test_odd_escapes_are_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    extract_program("```\ndef add(a, b): return '\\d'\n```", names=["add"])
    assert not recwarn.list
