from __future__ import annotations

from trainables.calibration import calibrate


def test_points_are_measured_and_the_model_is_left_as_it_was(setup) -> None:
    from trainables.session import load_base
    from trainables.variants.core.snapshot import fingerprint

    model, tokenizer = load_base(setup)
    before = fingerprint(model)
    found = calibrate(setup, model, tokenizer, ranks=[2, 4], batch_sizes=[2, 4], limit_s=60)
    assert [(step["rank"], step["batch_size"]) for step in found["steps"]] == [(2, 2), (2, 4), (4, 2), (4, 4)]
    assert all(step["seconds"] > 0 and step["tokens"] > step["batch_size"] for step in found["steps"])
    assert found["evaluation_row_s"] > 0 and found["adapter_per_rank"] > 0
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert fingerprint(model) == before and not hasattr(model, "peft_config")


def test_weights_in_4_bits_are_counted_as_those_that_they_stand_for(setup) -> None:
    from dataclasses import replace

    from trainables.session import load_base

    counts = []
    for kind in ("none", "nf4"):
        told = replace(setup, quantization=kind)
        counts.append(calibrate(told, *load_base(told), ranks=[2], batch_sizes=[2], limit_s=0)["parameters"])
    assert counts[0] == counts[1]


def test_no_time_leaves_the_cheapest_point(setup) -> None:
    from trainables.session import load_base

    found = calibrate(setup, *load_base(setup), ranks=[2, 4], batch_sizes=[2, 4], limit_s=0)
    assert [(step["rank"], step["batch_size"]) for step in found["steps"]] == [(2, 2)]
    assert found["evaluation_row_s"] > 0
