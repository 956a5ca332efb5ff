from __future__ import annotations

from pathlib import Path

import pytest

from searchers.space import Space, paper_space
from searchers.surrogate.reading.prompt import KNOWLEDGE, PAPER_KNOWLEDGE, QUESTION, STYLES, Prompt, format_value
from searchers.testing import conditional_space

SCALE = "Scaling factor(\N{GREEK SMALL LETTER ALPHA})"
CONFIG = {"rank": 8, "alpha_ratio": 2.0, "batch_size": 64, "learning_rate": 2e-4, "dropout": 0.05}


@pytest.mark.parametrize(
    ("style", "values"),
    [
        (
            "default",
            "learning rate: high (2e-4)\nbatch size: high (64)\nrank: medium (8)\nalpha / rank: low (2)\ndropout: 0.05",
        ),
        (
            "paper",
            f"* rank(r): 8\n* {SCALE}: 16\n* Dropout Rate: 0.05\n* Batch Size: 64\n* Learning Rate: 2e-4",
        ),
        ("plain", f"rank(r)=8, {SCALE}=16, Dropout Rate=0.05, Batch Size=64, Learning Rate=2e-4"),
    ],
)
def test_values_come_last_in_the_style_asked_for(style: str, values: str) -> None:
    prompt = Prompt(paper_space(), style=style)
    assert prompt.text(CONFIG) == prompt.prefix + values


def test_knowledge_about_every_knob_comes_first() -> None:
    prefix = Prompt(paper_space()).prefix
    for name in ("rank", "alpha", "batch_size", "learning_rate", "dropout"):
        assert f"- {KNOWLEDGE[name]}\n" in prefix


def test_the_papers_prompt_explains_its_knobs_in_its_order_and_nothing_else() -> None:
    prefix = Prompt(paper_space(), style="paper").prefix
    order = ("rank", "alpha", "dropout", "batch_size", "learning_rate")
    assert prefix == "".join(f"* {PAPER_KNOWLEDGE[name]}\n" for name in order)


def test_the_papers_prompt_explains_knobs_that_the_paper_does_not_have_as_others_do() -> None:
    prefix = Prompt(Space.from_dict({"variant": ["lora", "dora"], "rank": [4, 8]}), style="paper").prefix
    assert prefix.startswith(f"* {KNOWLEDGE['variant']}") and PAPER_KNOWLEDGE["rank"] in prefix


def test_the_question_stands_before_the_values() -> None:
    assert Prompt(paper_space()).prefix.endswith(QUESTION)


def test_plain_has_no_domain_knowledge() -> None:
    assert Prompt(paper_space(), style="plain").prefix == "\n"


def test_variants_are_explained_where_something_is_known() -> None:
    prefix = Prompt(Space.from_dict({"variant": ["lora", "pissa", "mine"], "rank": [4, 8]})).prefix
    assert "pissa needs a smaller learning rate than LoRA." in prefix and "mine" not in prefix


@pytest.mark.parametrize("style", STYLES)
def test_different_configurations_have_different_texts(style: str) -> None:
    space = Space.from_dict({"variant": ["lora", "dora"], "rank": [1, 2, 4], "alpha_ratio": [1, 2, 4]})
    prompt = Prompt(space, style=style)
    assert len({prompt.values(space.decode(i)) for i in range(len(space))}) == 18


@pytest.mark.parametrize("style", STYLES)
def test_knobs_that_do_not_apply_are_left_out(style: str) -> None:
    space, prompt = conditional_space(), Prompt(conditional_space(), style=style)
    texts = [prompt.values(space.decode(i)) for i in range(len(space))]
    assert len(set(texts)) == 10
    for i, text in enumerate(texts):
        assert ("niter" in text) is ("niter" in space.decode(i))
        assert ("scale" in text) is ("scale" in space.decode(i))


@pytest.mark.parametrize("style", STYLES)
def test_a_fixed_knob_that_applies_to_some_is_shown_there(style: str) -> None:
    knobs = {"variant": ["lora", "vera"], "rank": 256, "dropout": [0.0, 0.1]}
    space = Space.from_dict(knobs, when={"rank": {"variant": ["vera"]}})
    prompt = Prompt(space, style=style)
    shown = ["256" in prompt.values(space.decode(i)) for i in range(len(space))]
    assert shown == ["rank" in space.decode(i) for i in range(len(space))]


def test_fixed_knobs_are_stated_once_and_unknown_ones_get_a_generic_line() -> None:
    space = Space.from_dict({"rank": [4, 8], "alpha_ratio": 2.0, "variant": "dora", "my_knob": ["a", "b"]})
    prompt = Prompt(space)
    assert "Fixed: alpha ratio 2, variant dora.\n" in prompt.prefix
    assert "my knob: a further setting" in prompt.prefix
    assert KNOWLEDGE["variant"] in prompt.prefix
    assert prompt.values(space.decode(0)) == "rank: very low (4)\nalpha: 8\nmy knob: a"


@pytest.mark.parametrize(
    ("style", "values"),
    [
        ("default", "rank: very high (8)\nalpha: 16"),
        ("paper", f"* rank(r): 8\n* {SCALE}: 16"),
        ("plain", f"rank(r)=8, {SCALE}=16"),
    ],
)
def test_alpha_moves_with_the_rank_where_its_ratio_is_fixed(style: str, values: str) -> None:
    space = Space.from_dict({"rank": [4, 8], "alpha_ratio": 2.0})
    assert Prompt(space, style=style).values(space.decode(1)) == values


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


def test_a_template_says_none_for_knobs_that_do_not_apply() -> None:
    prompt = Prompt(conditional_space(), "{variant} {niter} {scale} {learning_rate}")
    assert prompt.values(conditional_space().decode(0)) == "lora none none 1e-4"


def test_a_file_without_placeholders_replaces_the_knowledge_only(tmp_path: Path) -> None:
    space = Space.from_dict({"rank": [4, 8]})
    file = tmp_path / "prompt.txt"
    file.write_text("Only this.")
    prompt = Prompt.from_file(space, file)
    assert prompt.text(space.decode(0)) == "Only this.\n" + QUESTION + "rank: very low (4)"


def test_templates_that_cannot_work_are_refused(tmp_path: Path) -> None:
    space = Space.from_dict({"rank": [4, 8], "dropout": [0.0, 0.1]})
    with pytest.raises(ValueError, match=r"\{colour\} is no knob; use dropout, rank"):
        Prompt(space, "{rank} {dropout} {colour}")
    with pytest.raises(ValueError, match="knob dropout is searched but"):
        Prompt(space, "{rank}")
    with pytest.raises(ValueError, match="prompt: cannot read"):
        Prompt.from_file(space, tmp_path / "none.txt")


def test_an_unknown_style_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="prompt style: 'short' is unknown; use default, paper, plain"):
        Prompt(paper_space(), style="short")
