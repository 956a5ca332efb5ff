from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from raylora.errors import UserError
from raylora.metrics import make_metric
from raylora.metrics.base import OptionScores
from raylora.metrics.choice import Choice
from raylora.metrics.testing import Case, MetricConformance, row, text_case

ANIMALS = ["a cat", "a dog", "the big dog"]


def choice_row(answer, choices=ANIMALS, prompt="Which?", **metadata):
    return row(answer, prompt=prompt, metadata=json.dumps({"choices": choices, **metadata}))


class TestChoiceInText(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Choice(choices=ANIMALS)

    @pytest.fixture
    def case(self):
        return text_case(right=["(A)", "The dog: a dog"], wrong=["B", "a cat"], answers=["a cat", "B"])


class TestChoiceByLikelihood(MetricConformance):
    @pytest.fixture
    def metric(self):
        return Choice(how="likelihood", normalise="characters")

    @pytest.fixture
    def case(self):
        good, bad = OptionScores((-1.0, -5.0, -9.0), (2, 2, 3)), OptionScores((-9.0, -5.0, -1.0), (2, 2, 3))
        return Case([choice_row("a cat"), choice_row("A")], [good, good], [bad, bad])


@pytest.mark.parametrize(
    ("completion", "place"),
    [
        ("B", 1),
        ("b.", 1),
        ("(B) because it barks", 1),
        ("The answer is (B).", 1),
        ("the correct answer is answer2", 1),
        ("Answer: a dog", 1),
        ("I would say: the big dog.", 2),
        ("It may be a cat. The answer is: B", 1),
        ("A dog", 1),
        ("Answer: B because it barks", 1),
        ("I think it's B", 1),
        ("Option B is right", 1),
        ("A because it purrs", 0),
        ("\\boxed{\\text{B}}", 1),
        ("the choice (b)", 1),
        ("2.", 1),
        ("The answer is: 2", 1),
        ("9", None),
        ("both A and C", None),
        ("A, C", None),
        ("B or C", None),
        ("full of vitamin C", None),
        ("A plane", None),
        ("a cat or a dog", None),
        ("A bird", None),
        ("answer9", None),
        ("Z", None),
        ("", None),
    ],
)
def test_a_completion_chooses_by_text_letter_or_number(completion, place):
    right = [Choice().score([completion], [choice_row(answer)])[0] for answer in ANIMALS]
    assert right == [float(place == one) for one in range(3)]


@pytest.mark.parametrize("answer", ["a dog", "B", "(b)", "answer2", "2"])
def test_an_answer_is_a_text_a_letter_or_a_number(answer):
    assert Choice().score(["a dog"], [choice_row(answer)]) == [1.0]


def test_numbers_can_begin_with_zero():
    assert Choice(index_from=0).score(["a dog"], [choice_row("1")]) == [1.0]


def test_the_metadata_can_name_the_place():
    assert Choice().score(["a dog"], [choice_row("9", answer_index=1)]) == [1.0]


@pytest.mark.parametrize("answer", ["0", "9", "a bird", "Z"])
def test_an_answer_that_is_no_option_is_refused(answer):
    with pytest.raises(UserError, match=rf"answer: '{answer}' is none of the options \(a cat, a dog, the big dog\)"):
        Choice().score(["a dog"], [choice_row(answer)])


def test_length_normalisation_can_change_the_choice():
    scores = OptionScores((-4.0, -5.0, -6.0), (1, 2, 3))  # per token -4, -2.5, -2; per character -0.8, -1, -0.55
    values = Choice(how="likelihood").score([scores] * 3, [choice_row(answer) for answer in ANIMALS])
    assert values == [(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0)]


def test_all_normalisations_are_parts():
    metric = Choice(how="likelihood", normalise="tokens")
    estimate = metric.summarise(metric.score([OptionScores((-4.0, -5.0, -6.0), (1, 2, 3))], [choice_row("C")]))
    assert (estimate.value, estimate.parts["none"].value) == (1.0, 0.0)


def test_the_template_says_what_the_likelihood_is_of():
    assert Choice(how="likelihood", template=" ({letter}) {text}").options(choice_row("A"))[1] == " (B) a dog"


def test_a_model_is_measured_on_a_rows_options(tiny_model):
    metric = Choice(how="likelihood", choices=["1", "12"])
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    rows = [row("1", prompt="1+0="), row("12", prompt="3+9=")]
    scores = metric.measure(model, AutoTokenizer.from_pretrained(tiny_model), rows)
    assert [len(one.log_likelihoods) for one in scores] == [2, 2]
    assert all(value < 0 for one in scores for value in one.log_likelihoods)


def test_rows_without_options_are_refused():
    with pytest.raises(UserError, match=r"choice needs options"):
        Choice().score(["A"], [row("A")])


@pytest.mark.parametrize(
    "options",
    [{"how": "guess"}, {"normalise": "words"}, {"choices": ["a"]}, {"choices": ["a", "a"]}, {"template": "{x}"}],
)
def test_a_wrong_option_is_refused_by_name(options):
    with pytest.raises(UserError, match=rf"choice\.{next(iter(options))}: "):
        make_metric("choice", options)
