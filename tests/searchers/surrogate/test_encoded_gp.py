from __future__ import annotations

import numpy as np
import pytest
import torch

from searchers.gp import GPSearch
from searchers.latent import LatentBOSearch
from searchers.space import Space
from searchers.surrogate.encoded_gp import MixedEncoding, Surrogate, fit_latent, fit_mixed, standardise
from searchers.testing import conditional_space

SPACE = Space.from_dict({"kind": ["a", "b"], "x": list(range(8)), "y": list(range(8)), "fixed": 1})


def value(config: dict[str, int]) -> float:
    return -((config["x"] - 5.0) ** 2) - 0.5 * (config["y"] - 2.0) ** 2 - 3.0 * (config["kind"] == "a")


def test_mixed_encoding_has_a_column_per_searched_knob() -> None:
    encoding = MixedEncoding(SPACE)
    assert (encoding.categorical, encoding.ordinal) == ([0], [1, 2])
    x = encoding([SPACE.encode({"kind": "b", "x": 7, "y": 0})])
    assert x.dtype == torch.float64 and x.tolist() == [[1.0, 1.0, 0.0]]


def test_mixed_encoding_of_inactive_knobs_is_neutral() -> None:
    space = Space.from_dict(
        {"variant": ["lora", "pissa"], "niter": [2, 4], "init": ["a", "b", "c"]},
        when={"niter": {"variant": ["pissa"]}, "init": {"variant": ["pissa"]}},
    )
    x = MixedEncoding(space)([space.encode({"variant": "lora"})])
    assert x.tolist() == [[0.0, 0.5, 3.0]]
    # A fixed knob says nothing, also where it is conditional.
    assert MixedEncoding(conditional_space())([0]).shape == (1, 3)


def test_standardised_targets_have_no_mean_and_unit_variance() -> None:
    y = standardise([1.0, 2.0, 6.0])
    assert float(y.mean()) == pytest.approx(0) and float(y.square().mean()) == pytest.approx(1)
    assert standardise([0.3, 0.3]).tolist() == [0.0, 0.0]
    assert standardise([0.1 + 0.2, 0.3]).tolist() == [0.0, 0.0]


def test_the_posterior_is_that_of_botorch() -> None:
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel

    torch.manual_seed(0)
    x, y, at = (torch.rand(6, 2, dtype=torch.float64), torch.randn(6, dtype=torch.float64), torch.rand(9, 2).double())
    model = SingleTaskGP(x, y[:, None], covar_module=MaternKernel(nu=2.5).double(), outcome_transform=None).eval()
    surrogate = Surrogate(model.covar_module, model.mean_module.constant.detach(), model.likelihood.noise.detach()[0])
    mean, var, best = surrogate.posterior(x, y, at, x[:0])
    expected = model.posterior(at)
    assert mean == pytest.approx(expected.mean[:, 0].detach().numpy(), abs=1e-6)
    assert var == pytest.approx(expected.variance[:, 0].detach().numpy(), abs=1e-6)
    assert best == float(y.max())


@pytest.mark.parametrize("latent", [False, True])
def test_fitted_models_predict_what_they_have_not_seen(latent: bool) -> None:
    seen = SPACE.sample(np.random.default_rng(0), 40)
    rest = [i for i in range(len(SPACE)) if i not in set(seen)]
    truth = standardise([value(SPACE.decode(i)) for i in [*seen, *rest]])
    encoding = MixedEncoding(SPACE)
    if latent:
        x, at = (torch.from_numpy(SPACE.features(i)) for i in (seen, rest))
        model = fit_latent(x, truth[:40], width=64, steps=100, seed=0)
    else:
        x, at = encoding(seen), encoding(rest)
        model = fit_mixed(x, truth[:40], encoding, 50)
    mean, _, _ = model.posterior(x, truth[:40], at, x[:0])
    assert np.corrcoef(mean, truth[40:].numpy())[0, 1] > 0.9


def test_a_pending_row_is_believed_and_leaves_little_variance_around_it() -> None:
    encoding = MixedEncoding(SPACE)
    seen = SPACE.sample(np.random.default_rng(0), 10)
    x, y = encoding(seen), standardise([value(SPACE.decode(i)) for i in seen])
    model = fit_mixed(x, y, encoding, 20)
    at = encoding([next(i for i in range(len(SPACE)) if i not in seen)])
    before, var_before, _ = model.posterior(x, y, at, x[:0])
    after, var_after, _ = model.posterior(x, y, at, at)
    assert after == pytest.approx(before, abs=1e-3)
    assert var_after[0] < var_before[0]


@pytest.mark.parametrize("cls", [GPSearch, LatentBOSearch])
def test_the_searchers_find_the_best_of_a_smooth_objective(cls: type[GPSearch]) -> None:
    searcher = cls(space=SPACE, metric="score", mode="max", seed=0)
    found = []
    for number in range(25):
        config = searcher.suggest(str(number))
        assert isinstance(config, dict)
        found.append(value(config))
        searcher.on_trial_complete(str(number), {"score": found[-1]})
    # Of the 128 configurations; 25 random ones would hold the best with a probability of one fifth.
    assert max(found) == 0.0


def test_large_spaces_are_scored_on_a_sample_and_the_neighbours_of_the_best() -> None:
    searcher = GPSearch(space=SPACE, metric="score", mode="max", seed=0, candidates=10, fit_steps=5)
    best = SPACE.encode({"kind": "b", "x": 5, "y": 2})
    free = searcher._free([(best, 0.0)])
    assert set(SPACE.neighbours(best)) <= set(free.tolist())
    assert len(free) <= 10 + len(SPACE.neighbours(best))
    searcher._seen = set(range(len(SPACE))) - {7}
    assert searcher._free([(best, 0.0)]).tolist() == [7]


@pytest.mark.parametrize("option", ["n_initial", "candidates", "fit_steps", "width"])
def test_options_outside_their_domain_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: 0 is too small"):
        LatentBOSearch(**{option: 0})
