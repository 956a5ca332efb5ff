from __future__ import annotations


def test_what_is_lost_is_shown_table_by_table(table) -> None:
    shown = table("bench", "recommend", "tulu3/llama_3.1_8b", "--seeds", "0", "--without", "tinker-cookbook", "--quiet")
    assert "llama_3.1_8b" in shown and "2e-4 (size / 8e9)^-0.3" in shown
