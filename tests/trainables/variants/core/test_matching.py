"""Variants at equal size, and what cannot be attached, known without training."""

from __future__ import annotations

import pytest
import torch

from trainables.protocols import TrainSettings
from trainables.run import adapter_config
from trainables.variants import available, get_variant
from trainables.variants.core.config import AdapterConfig
from trainables.variants.core.matching import matched_rank, possible
from trainables.variants.core.matrices import select_matrices
from trainables.variants.core.tiny import make_base


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("rank", [1, 4, 8])
def test_no_other_rank_trains_a_number_of_parameters_nearer_to_loras(name: str, rank: int) -> None:
    cls, base = get_variant(name), make_base()
    matrices = select_matrices(base, "all-linear")
    target = sum(rank * (m.rows + m.columns) for m in matrices)

    def miss(r: int) -> int:
        return abs(sum(cls.matrix_parameters(m.rows, m.columns, r) for m in matrices) - target)

    found = matched_rank(cls, matrices, rank)
    limit = 16 if cls.rank_limited else 48  # the smallest and the largest side of the base's matrices
    assert miss(found) == min(miss(r) for r in range(1, limit + 1))


def test_a_variant_attached_at_its_matched_rank_is_about_as_large_as_lora() -> None:
    base = make_base()
    matrices = select_matrices(base, "all-linear")
    sizes = {}
    for name in ("lora", "lora_xs", "dylora"):
        variant = get_variant(name)()
        variant.attach(base, AdapterConfig(matched_rank(type(variant), matrices, 2), 8.0))
        sizes[name] = variant.parameter_count()
        variant.detach()
    assert sizes["dylora"] == sizes["lora"] == pytest.approx(sizes["lora_xs"], rel=0.1)


def test_positions_that_lelora_may_not_choose_do_not_count() -> None:
    base, settings = make_base(), TrainSettings(samples=1, match_parameters="lora")
    knobs = {"variant": "lelora", "rank": 3, "alpha_ratio": 1, "learning_rate": 1e-3}
    ranks = {
        positions: adapter_config(knobs | {"positions": positions}, settings, model=base).rank
        for positions in ("all", "primary")
    }
    assert ranks == {"all": 1, "primary": 3}
    found = possible(base, "lelora", [3], {"positions": ["nowhere"]}, match="lora")
    assert not found.ranks and "option positions is 'nowhere'" in str(found.problems[0][1])


def test_alpha_ratio_counts_from_the_effective_rank_and_alpha_is_taken_as_it_is() -> None:
    base, settings = make_base(), TrainSettings(samples=1, match_parameters="lora")
    knobs = {"variant": "lora_xs", "rank": 1, "alpha_ratio": 2, "learning_rate": 1e-3}
    config = adapter_config(knobs, settings, model=base)
    assert config.rank > 4 and config.alpha == 2 * config.rank
    assert adapter_config({**knobs, "alpha": 16}, settings, model=base).alpha == 16
    assert adapter_config(knobs, TrainSettings(samples=1), model=base).rank == 1


def test_what_is_possible_is_known_without_weights() -> None:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(make_base().config)
    assert possible(base, "lora", [4, 999], {}).ranks == {4: {}, 999: {}}  # as PEFT, beyond the smaller side
    assert list(possible(base, "pissa", [4, 16, 17], {}).ranks) == [4, 16]
    for arguments, message in (
        (("pissa", [999], {}), "variant pissa: rank 999 exceeds the smaller side of"),
        (("lora", [4], {}, ["q_prj"]), "placement 'q_prj' matches no matrix: use 'all-linear' or some of"),
        (("melora", [4], {"minis": [3]}), "variant melora: option minis is 3, which does not divide"),
    ):
        found = possible(base, *arguments)  # type: ignore[arg-type]
        assert not found.ranks
        what, why = found.problems[0][0], str(found.problems[0][1])
        assert what == f"rank {arguments[1][0]}" and why.startswith(message) and "\n" not in why


def test_an_option_that_one_rank_cannot_have_is_left_to_the_others() -> None:
    found = possible(make_base(), "dylora", [2, 8], {"r_min": [1, 8], "of_another": [0]})
    assert found.ranks == {2: {"r_min": [1]}, 8: {"r_min": [1, 8]}}
    assert [what for what, _ in found.problems] == ["r_min 8 at rank 2"]
    # k = 2, the first value, divides no odd rank; another does.
    assert possible(make_base(), "gralora", [1, 4], {"k": [2, 1]}).ranks == {1: {"k": [1]}, 4: {"k": [2, 1]}}
