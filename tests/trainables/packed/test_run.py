from __future__ import annotations

import pytest

from trainables.variants import available, get_variant

PACKABLE = [name for name in available() if get_variant(name).shares_pass]
SETTINGS = {"micro_batch_tokens": 64, "samples": 400}


def knobs_of(place: int, variant: str) -> dict:
    """Unequal in all that trials of a pack may differ in; some accumulate."""
    ranks, placements = (2, 4, 6), ("all-linear", ["q_proj", "down_proj"], ["up_proj", "v_proj"])
    return {
        "variant": variant,
        "rank": ranks[place % 3],
        "batch_size": (1, 3, 8)[place % 3],
        "dropout": (0.1, 0.0, 0.1, 0.3)[place % 4],
        "placement": placements[place % 3] if place > 4 else "all-linear",
        # At this rate, a hundred times its own, and with AdamW's epsilon LoFT carries rounding on: alone on one thread
        # and on two, its losses of 50 steps are 1e-4 apart. The epsilon of its authors' code does not.
        **({"eps": 1e-4} if variant == "loft" else {}),
    }


@pytest.mark.parametrize("steps", [10, pytest.param(50, marks=pytest.mark.real)])
def test_every_variant_has_in_one_pack_the_losses_that_it_has_alone(make_run, train_packed, steps) -> None:
    assert not apart(make_run, train_packed, PACKABLE, steps)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_variants_have_in_one_pack_over_a_quantised_base_the_losses_that_they_have_alone(
    kind, make_run, train_packed, tiny_model
) -> None:
    from transformers import AutoModelForCausalLM

    from trainables.packed.trunk import Trunk
    from trainables.variants.core.snapshot import fingerprint
    from trainables.variants.core.tiny import quantize

    base = quantize(AutoModelForCausalLM.from_pretrained(tiny_model), kind)
    bits = fingerprint(base)
    # Updates of all kinds: factors, factors out of the base, a layer around the matrix, whole matrices.
    assert not apart(make_run, train_packed, ["lora", "pissa", "dora", "mora"], 3, over=(base, Trunk(base)))
    assert fingerprint(base) == bits


def apart(make_run, train_packed, variants, steps, **how) -> dict[str, float]:
    """Of the variants whose losses in one pack are not those that they have alone, by how much."""
    configurations = [knobs_of(place, variant) for place, variant in enumerate(variants)]
    expected = []
    for knobs in configurations:
        run = make_run(knobs, alone=True, **SETTINGS, **how)
        expected.append([run.train_step() for _ in range(steps)])
    packed = [make_run(knobs, **SETTINGS, **how) for knobs in configurations]
    assert all(run.shares for run in packed)
    losses = train_packed(packed, steps)
    return {
        knobs["variant"]: max(abs(a - b) for a, b in zip(own, alone, strict=True))
        for knobs, own, alone in zip(configurations, losses, expected, strict=True)
        if own != pytest.approx(alone, abs=1e-4)
    }
