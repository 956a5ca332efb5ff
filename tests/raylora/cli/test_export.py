from __future__ import annotations

import json


def test_adapter_is_copied_and_its_folder_told(workplace, tmp_path, answer) -> None:
    told = answer("export", workplace / "runs" / "sums", "--to", tmp_path / "adapter")
    assert told == {"folder": str(tmp_path / "adapter"), "merged": False, "format": "peft", "notes": []}
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


def test_run_without_adapter_is_one_line(workplace, tmp_path, mistake) -> None:
    assert "has no adapter" in mistake("export", workplace / "runs" / "again", "--to", tmp_path / "adapter")


def test_folder_that_is_full_is_one_line(workplace, mistake) -> None:
    assert "--to" in mistake("export", workplace / "runs" / "sums", "--to", workplace)


def test_what_does_not_go_together_is_one_line(workplace, tmp_path, mistake) -> None:
    run, to = workplace / "runs" / "sums", ("--to", tmp_path / "out")
    assert mistake("export", run, *to, "--merge", "--format", "peft").startswith("--merge: not with --format peft")
    assert mistake("export", run, *to, "--type", "q8_0").startswith("--type: q8_0: goes with --format gguf")
    assert mistake("export", run, *to, "--merge", "--check", "vllm").startswith(
        "--check: vllm: goes with --format peft"
    )
    assert mistake("export", run, *to, "--merge", "--recipe", "trl").startswith("--merge: not with --recipe")


def test_an_adapter_that_a_program_cannot_have_is_refused_with_the_nearest_that_it_can(
    old_run, tmp_path, mistake
) -> None:
    run = old_run("finished")
    config = run / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    told = mistake("export", run, "--to", tmp_path / "out", "--check", "vllm")
    assert told == (
        "--check: vllm: vLLM does not know DoRA in an adapter; --format merged writes a model that it can have"
    )
    assert not (tmp_path / "out").exists()


def test_alphas_that_differ_are_made_one_for_a_program_and_said(old_run, tmp_path, answer) -> None:
    run = old_run("finished")
    config = run / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"alpha_pattern": {"q_proj": 8}}))
    told = answer("export", run, "--to", tmp_path / "out", "--check", "vllm")
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["alpha_pattern"]) == (2, 2, {})
    assert told["notes"] == [
        "vLLM does not know alphas that differ: written with one rank and one alpha, which computes the same"
    ]
