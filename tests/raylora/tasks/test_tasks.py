from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import available, make_task


def test_every_family_and_generator_is_listed():
    names = available()
    assert {"gsm8k", "instruct", "reasoning_gym/chain_sum", "reasoning_gym/gsm_symbolic"} <= set(names)
    assert len(names) > 100


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chain_sums", {}, r"task.name: unknown 'chain_sums'; choose "),
        ("reasoning_gym/chain_sums", {}, r"no generator 'chain_sums'; did you mean .*chain_sum"),
        ("reasoning_gym/chain_sum", {"min_digit": 2}, r"task.options: .*min_digit=2.*unexpected keyword"),
        (
            "reasoning_gym/chain_sum",
            {"min_terms": 9, "max_terms": 2},
            r"task.options: reasoning_gym/chain_sum refuses",
        ),
        ("reasoning_gym/chain_sum", {"train_rows": 0}, r"task.train_rows: 0 is not a positive whole number"),
        ("reasoning_gym/chain_sum", {"path": "x"}, r"task.path: .* generates its rows"),
        ("instruct", {}, r"task.path: instruct needs it"),
        ("instruct", {"path": "x.parquet"}, r"task.path: 'x.parquet' does not exist"),
        ("instruct", {"train": ["x.parquet"]}, r"task.train: 'x.parquet' does not exist"),
        (
            "instruct",
            {"path": ".", "colour": 1},
            r"task.colour: instruct has no such option; it takes path, train",
        ),
        ("instruct", {"path": ".", "match": "fuzzy"}, r"task.match: unknown 'fuzzy'; choose one of exact"),
        (
            "instruct",
            {"path": ".", "prompt_template": "{a}"},
            r"task.options.response_column: missing; prompt_template and response_column go together",
        ),
        (
            "instruct",
            {"path": ".", "prompt_template": "{", "response_column": "b"},
            r"task.options.prompt_template: '{'; allowed: text with columns in {braces}",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_that_names_field_and_value(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        make_task(name, options)
    assert "\n" not in str(caught.value)


def test_options_left_open_keep_their_defaults_and_none_may_be_given_twice():
    assert make_task("reasoning_gym/gcd", {"test_rows": 7}, train_rows=None, path=None).test_rows == 7
    with pytest.raises(UserError, match=r"task.test_rows: given twice"):
        make_task("reasoning_gym/gcd", {"test_rows": 7}, test_rows=8)
