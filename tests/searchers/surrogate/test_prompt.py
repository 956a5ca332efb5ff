from __future__ import annotations

from pathlib import Path

import pytest

from searchers.space import Space, default_space
from searchers.surrogate.prompt import KNOWLEDGE, QUESTION, Prompt, format_value


def test_knowledge_comes_first_and_values_last() -> None:
    space = default_space()
    prompt = Prompt(space)
    config = space.encode({"rank": 8, "alpha_ratio": 2, "batch_size": 64, "learning_rate": 2e-4, "dropout": 0.05})
    text = prompt.text(space.decode(config))
    assert text.startswith(prompt.prefix)
    assert text[len(prompt.prefix) :] == (
        "rank: medium (8)\nalpha / rank: low (2, alpha 16)\nbatch size: high (64)\nlearning rate: high (2e-4)\n"
        "dropout: low (0.05)\n" + QUESTION
    )
    for name in ("rank", "alpha", "batch_size", "learning_rate", "dropout"):
        assert KNOWLEDGE[name] in prompt.prefix


def test_different_configurations_have_different_texts() -> None:
    space = Space.from_dict({"variant": ["lora", "dora"], "rank": [1, 2, 4], "alpha_ratio": [1, 2, 4]})
    texts = {Prompt(space).values(space.decode(i)) for i in range(len(space))}
    assert len(texts) == 18


def test_fixed_knobs_are_stated_once_and_unknown_ones_get_a_generic_line() -> None:
    space = Space.from_dict({"rank": [4, 8], "alpha_ratio": 2.0, "variant": "dora", "my_knob": ["a", "b"]})
    prompt = Prompt(space)
    assert "Fixed: alpha ratio 2, variant dora.\n" in prompt.prefix
    assert "my knob: a further setting" in prompt.prefix
    assert KNOWLEDGE["variant"] in prompt.prefix
    assert prompt.values(space.decode(0)) == "rank: very low (4)\nalpha: 8\nmy knob: a\n" + QUESTION


@pytest.mark.parametrize(
    ("value", "text"),
    [(8, "8"), (8.0, "8"), (0.05, "0.05"), (1e-6, "1e-6"), (2.5e-4, "2.5e-4"), (0, "0"), (True, "True"),
     ("lora", "lora"), (("q", "v"), "q+v"), (32768.0, "32768")],
)  # fmt: skip
def test_values_are_written_as_people_write_them(value: object, text: str) -> None:
    assert format_value(value) == text


def test_a_template_file_replaces_the_text(tmp_path: Path) -> None:
    space = Space.from_dict({"rank": [4, 8], "alpha_ratio": [1.0, 2.0]})
    file = tmp_path / "prompt.txt"
    file.write_text("What I know.\nr={rank}, a={alpha}\nThank you.\n")
    prompt = Prompt.from_file(space, file)
    assert prompt.prefix == "What I know.\n"
    assert prompt.values(space.decode(3)) == "r=8, a=16\nThank you.\n"


def test_a_file_without_placeholders_replaces_the_knowledge_only(tmp_path: Path) -> None:
    space = Space.from_dict({"rank": [4, 8]})
    file = tmp_path / "prompt.txt"
    file.write_text("Only this.")
    prompt = Prompt.from_file(space, file)
    assert prompt.text(space.decode(0)) == "Only this.\nChosen values:\nrank: very low (4)\n" + QUESTION


def test_templates_that_cannot_work_are_refused(tmp_path: Path) -> None:
    space = Space.from_dict({"rank": [4, 8], "dropout": [0.0, 0.1]})
    with pytest.raises(ValueError, match=r"\{colour\} is no knob; use dropout, rank"):
        Prompt(space, "{rank} {dropout} {colour}")
    with pytest.raises(ValueError, match="knob dropout is searched but"):
        Prompt(space, "{rank}")
    with pytest.raises(ValueError, match="prompt: cannot read"):
        Prompt.from_file(space, tmp_path / "none.txt")
