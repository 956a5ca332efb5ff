from __future__ import annotations

import json

import pytest
import torch

from raylora.bench.overhead import bench_overhead
from raylora.bench.variants import peak_bytes
from raylora.cli import main


@pytest.mark.real
def test_overhead_reports_the_promised_figures(ray_local) -> None:
    figures = bench_overhead(trials=3, nest_trials=1, quiet=True)
    assert {"warm_s", "nest_s", "ratio"} <= set(figures)
    assert figures["base_unchanged"] == 1.0
    assert figures["ratio"] == figures["nest_s"] / figures["warm_s"]


def test_variants_are_measured_against_lora_in_the_promised_form(tiny_model, tmp_path, capsys) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--model", str(tiny_model), "--variants", "full,lora_xs", "--rank", "4", "--length", "16"]
    assert main(["bench", "variants", *arguments, "--repetitions", "2", "--quiet", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())["variants"]
    assert list(figures) == ["lora", "full", "lora_xs"]
    promised = {"step_time", "peak_memory", "trainable", "attach_s", "adapter", "hypernetwork", "hypernetwork_time"}
    assert all(set(row) == promised | {"hypernetwork_gmac", "optimizer_mb"} for row in figures.values())
    assert figures["lora"]["step_time"] == figures["lora"]["peak_memory"] == 1.0
    assert figures["lora_xs"]["trainable"] == 14 * 16 < figures["lora"]["trainable"] < figures["full"]["trainable"]
    assert figures["full"]["optimizer_mb"] > figures["lora"]["optimizer_mb"]
    assert "lora_xs" in capsys.readouterr().out


def test_lelora_is_measured_over_a_whole_interval_with_its_policy_actor(tiny_model, ray_local, tmp_path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--model", str(tiny_model), "--variants", "lelora", "--rank", "4", "--length", "16"]
    assert main(["bench", "variants", *arguments, "--repetitions", "1", "--quiet", "--json", str(file)]) == 0
    row = json.loads(file.read_text())["variants"]["lelora"]
    assert row["step_time"] > 0 and row["peak_memory"] > 0 and row["trainable"] > 0


def test_bench_variants_refuses_in_one_line_what_it_cannot_measure(tiny_model, capsys) -> None:
    for arguments, message in (
        (["--variants", "lorra"], "--variants lorra: no such variant"),
        (["--repetitions", "0"], "--repetitions: 0; allowed: at least 1"),
        (["--length", "3"], "--length: 3; allowed: at least 4"),
        (["--rank", "4096", "--variants", "pissa"], "--variants pissa: variant pissa: rank 4096 exceeds"),
    ):
        assert main(["bench", "variants", "--model", str(tiny_model), "--quiet", *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"raylora: {message}")


def test_peak_memory_counts_what_is_alive_at_a_time_and_not_the_base() -> None:
    base = torch.nn.Linear(100, 100)

    def work() -> None:
        view = base.weight.detach().T
        for _ in range(3):
            first = torch.ones(1000)  # 4,000 bytes
            second = torch.ones(2000)
            del first
            del second
        assert view.shape == (100, 100)

    assert peak_bytes(work, torch.device("cpu"), base) == 12_000
