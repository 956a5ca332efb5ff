from __future__ import annotations

from raylora.bench.packed.memory import _measure
from trainables.testing import make_tiny_model


def test_what_trials_have_of_their_own_is_counted(tmp_path) -> None:
    model = str(make_tiny_model(tmp_path))
    one, three = (_measure(model, pack, 2, "lora", "float32", "cpu") for pack in (0, 3))
    assert three.adapters == 3 * one.adapters > 0 and three.optimizers >= 2 * three.adapters
    assert one.peak > one.activations > 0 and three.activations > one.activations
