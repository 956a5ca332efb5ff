from __future__ import annotations


def test_variants_are_listed_for_people_and_programs(table, answer) -> None:
    shown = table("variants")
    assert "pissa" in shown and "plain LoRA" in shown and "PEFT's own form" in shown and "merged model" in shown
    rows = {row["name"]: row for row in answer("variants")}
    assert rows["lora"]["exports_lora"] is True and "ddp" in rows["lora"]["runs_on"]
