from __future__ import annotations

import pyarrow as pa

from raylora.data.stream import prompt_keys


def test_rows_have_one_key_where_their_prompts_are_one_and_plain_text_counts_as_its_own():
    table = pa.table({"prompt": ["q", "q", "r", "", "", None], "response": ["a", "b", "a", "one", "two", None]})
    first, second, other, one, two, nothing = prompt_keys(table).tolist()
    assert first == second
    assert len({first, other, one, two, nothing}) == 5
