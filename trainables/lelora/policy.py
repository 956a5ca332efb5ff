"""The policy that chooses a strategy (r, s) for each matrix, learnt by REINFORCE. No Ray here.

    N                    matrices of the model
    xi (N, F)            numbers that describe them now, F = BINS + 1: see `describe`
    a  (N, 2) int64      choice: index into the candidate dimensions, index into the candidate positions
    p(a | xi)            softmax of two heads: p_r(r) p_s(s)
    A                    advantage of an interval's choices, `()` or `(N,)`: positive where they cost more than expected

A is one number where the reward is one (`rewards.ScalarReward`) and one per matrix where each matrix has its own
(`rewards.MatrixReward`).

Signs. What A is about is a cost, so the policy *descends* on its expectation:

    gradient  = grad sum over matrices of A log p(a | xi) / sqrt(N)
    Omega    <- Omega - rate * gradient

which makes choices that were followed by a lower cost than expected more probable. With one number for all, the sum is
the log-probability of all choices together, which is what the one cost is about; matrices share most of the network, so
that its noise moves their logits by sqrt(N), which is divided out. Plain gradient descent is the paper's: Adam moves
each of the 800,000 weights by about the rate at every step, whatever the advantage, and a policy then settles on its
first draws.

The start. Both last layers are zero, so the first choices are uniform, exactly; at the paper's Kaiming start they
favour some for no reason. Until the last layers have grown, they alone learn, and a step for matrix i moves the logits
of matrix j by as much as the product of what the heads read of the two. What the trunk's ReLUs give is nearly the same
for all matrices: a step for one would move them all, and those that want different things would undo each other's. So
the mean over the matrices is taken off. With K types that would make the product negative between types, by
1 / (K - 1) of the squared length, on average; a constant of just that square beside it makes it zero. The length is
such (`READ`) that the first updates move logits about as far as those of all layers do at a Kaiming start.

Where r = 0 was chosen, the position had no effect, so its probability is left out of log p: the expectation of the
gradient is the same, its variance is smaller.

Zhou et al., LeLoRA, section 3.2, equations 8 to 10, and appendix B; Williams, Simple statistical gradient-following
algorithms for connectionist reinforcement learning, 1992.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

BINS = 64
EMBEDDING = 200
HIDDEN = (1024, 256, 64)
READ = 2.0  # root mean square of what the heads read: 64 READ^2 is the squared gradient of a logit at a Kaiming start


@dataclass(frozen=True)
class PolicySettings:
    """What a policy is about; trials share one only where all of it but the seed is equal.

    Attributes:
        layers, kinds: layer index and type of each matrix, N of both.
        dimensions, positions: the candidates.
        rate: of the policy; 0 leaves it uniform.
        cost: how R is made, as text: what costs made differently say is not the same.
        origin: digest of the state that it begins from; empty where it begins uniform.
        seed: of the network.
    """

    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    dimensions: tuple[int, ...]
    positions: tuple[str, ...]
    rate: float = 1e-3
    cost: str = ""
    origin: str = ""
    seed: int = 0

    def digest(self) -> str:
        """The same for settings that can share a policy; 16 hexadecimal digits."""
        about = [self.layers, self.kinds, self.dimensions, self.positions, self.rate, self.cost, self.origin]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What came of a choice: xi `(N, F)` fp32 and a `(N, 2)` int64 when it was made, and its advantage, finite.

    The advantage is one number for all matrices, or one for each, `(N,)`.
    """

    features: np.ndarray
    choice: np.ndarray
    advantage: float | np.ndarray


@functools.lru_cache(maxsize=256)
def bin_weights(k: int, bins: int = BINS) -> np.ndarray:
    """Weights `(bins, k)` that bring k values to `bins`.

    Bin b is the mean over [b / bins, (b + 1) / bins) of the step function that has value i on [i / k, (i + 1) / k).
    For k < bins a value fills several bins.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    cells = np.linspace(0.0, 1.0, k + 1)
    overlap = np.minimum(edges[1:, None], cells[None, 1:]) - np.maximum(edges[:-1, None], cells[None, :-1])
    return np.clip(overlap, 0.0, None) * bins


def describe(spectra: Sequence[np.ndarray]) -> np.ndarray:
    """xi `(N, BINS + 1)` fp32: log(1 + Frobenius norm), then log(1 + singular value) in `BINS` bins of equal width.

    Args:
        spectra: the current singular values of each matrix, `(k,)`, of any lengths k >= 1. The Frobenius norm is the
            root of the sum of their squares.
    """
    rows = [
        np.concatenate([[np.linalg.norm(values)], bin_weights(len(values)) @ values.astype(np.float64)])
        for values in spectra
    ]
    return np.log1p(np.stack(rows)).astype(np.float32)


class PolicyNetwork(nn.Module):
    """MLP over [layer embedding, type embedding, xi] with hidden widths 1024, 256, 64 (ReLU), and two heads.

    Weights are Kaiming uniform (He et al., arXiv 1502.01852), those of the heads zero, and so are biases. xi is
    standardised by its mean and standard deviation over the matrices at the start, which are kept, and embeddings are
    uniform of variance 1, so that layer and type weigh as much as each of its numbers.
    """

    layer: Tensor
    kind: Tensor
    scaling: Tensor

    def __init__(self, settings: PolicySettings, features: np.ndarray) -> None:
        super().__init__()
        layers, kinds = sorted(set(settings.layers)), sorted(set(settings.kinds))
        self.register_buffer("layer", torch.tensor([layers.index(one) for one in settings.layers]))
        self.register_buffer("kind", torch.tensor([kinds.index(one) for one in settings.kinds]))
        xi = torch.as_tensor(features)
        self.register_buffer("scaling", torch.stack([xi.mean(0), xi.std(0, correction=0).clamp_min(1e-3)]))  # (2, F)
        self.embed_layer = nn.Embedding(len(layers), EMBEDDING)
        self.embed_kind = nn.Embedding(len(kinds), EMBEDDING)
        widths = (2 * EMBEDDING + xi.shape[1], *HIDDEN)
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            parts += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.trunk = nn.Sequential(*parts)
        self.constant = READ * math.sqrt(HIDDEN[-1] / max(1, len(kinds) - 1))
        self.heads = nn.ModuleList(
            nn.Linear(HIDDEN[-1] + 1, len(candidates), bias=False)
            for candidates in (settings.dimensions, settings.positions)
        )
        generator = torch.Generator().manual_seed(settings.seed)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.kaiming_uniform_(part.weight, nonlinearity="relu", generator=generator)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, nn.Embedding):
                nn.init.uniform_(part.weight, -math.sqrt(3), math.sqrt(3), generator=generator)
        for head in self.heads:
            nn.init.zeros_(head.weight)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """log p_r `(N, dimensions)` and log p_s `(N, positions)` from xi `(N, F)`."""
        xi = (features - self.scaling[0]) / self.scaling[1]
        hidden = self.trunk(torch.cat([self.embed_layer(self.layer), self.embed_kind(self.kind), xi], dim=1))
        apart = READ * F.rms_norm(hidden - hidden.mean(dim=0), hidden.shape[1:])
        read = torch.cat([apart, apart.new_full((len(apart), 1), self.constant)], dim=1)
        by_dimension, by_position = (head(read).log_softmax(dim=1) for head in self.heads)
        return by_dimension, by_position


class Policy:
    """A policy network and its learning.

    Args:
        settings: see `PolicySettings`.
        features: the first xi `(N, F)`.
    """

    def __init__(self, settings: PolicySettings, features: np.ndarray) -> None:
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            self.network = PolicyNetwork(settings, features)
        self.updates = 0
        self._zero = torch.tensor([r == 0 for r in settings.dimensions])

    def probabilities(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p_r `(N, dimensions)` and p_s `(N, positions)`."""
        with torch.no_grad():
            by_dimension, by_position = self.network(torch.as_tensor(features))
        return by_dimension.exp().numpy(), by_position.exp().numpy()

    def choose(self, features: np.ndarray, seed: int) -> np.ndarray:
        """a `(N, 2)`, drawn from p(a | xi); the same for the same seed and parameters."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            logs = self.network(torch.as_tensor(features))
        drawn = [torch.multinomial(log.exp(), 1, generator=generator) for log in logs]
        return torch.cat(drawn, dim=1).numpy()

    def log_probability(self, features: np.ndarray, choice: np.ndarray) -> Tensor:
        """log p(a | xi) of each matrix, `(N,)`, with a gradient."""
        by_dimension, by_position = self.network(torch.as_tensor(features))
        a = torch.as_tensor(choice)
        of_position = by_position.gather(1, a[:, 1:]).squeeze(1)
        return by_dimension.gather(1, a[:, :1]).squeeze(1) + of_position.masked_fill(self._zero[a[:, 0]], 0.0)

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """One step from one or several outcomes, whose gradients are averaged."""
        if not outcomes:
            return
        size = math.sqrt(len(self.settings.layers))
        terms = [
            (
                torch.as_tensor(outcome.advantage, dtype=torch.float32)
                * self.log_probability(outcome.features, outcome.choice)
            ).sum()
            / size
            for outcome in outcomes
        ]
        parameters = list(self.network.parameters())
        gradients = torch.autograd.grad(torch.stack(terms).mean(), parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-self.settings.rate)
        self.updates += 1

    # ---- state ----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on: copies, of shapes that do not change."""
        return {
            "parameters": parameters_to_vector(self.network.parameters()).detach().clone(),
            "scaling": self.network.scaling.clone(),
            "updates": torch.tensor(self.updates),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave for equal settings.

        Raises:
            ValueError: a shape differs.
        """
        for name, value in self.state().items():
            if name not in state or state[name].shape != value.shape:
                raise ValueError(f"policy: saved {name} does not fit these matrices and candidates")
        with torch.no_grad():
            vector_to_parameters(state["parameters"].clone(), self.network.parameters())
            self.network.scaling.copy_(state["scaling"])
        self.updates = int(state["updates"])


def random_choice(settings: PolicySettings, seed: int) -> np.ndarray:
    """a `(N, 2)`, uniform over the candidates."""
    rng = np.random.default_rng(seed)
    count = len(settings.layers)
    sizes = (len(settings.dimensions), len(settings.positions))
    return np.stack([rng.integers(size, size=count) for size in sizes], axis=1)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """The same for equal states of a policy; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
