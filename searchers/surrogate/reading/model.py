"""The frozen language model that reads prompts, and whether it lets them share their beginnings."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .attention import NAME, Context, attend, attending

logger = logging.getLogger(__name__)

# Called with the prompts read and all prompts.
Progress = Callable[[int, int], None]


def pick_device(device: str, num_gpus: float) -> str:
    """`auto` is CUDA where a share of a GPU was asked for and is there, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if num_gpus > 0 and torch.cuda.is_available() else "cpu"


def inference_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32.

    AVX-512 is enough for reading; training, which is slower so, asks for more (`trainables.session.pick_dtype`).
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return torch.bfloat16 if any(check() for check in checks if check is not None) else torch.float32


class FrozenModel:
    """A frozen language model that has read the constant part of the prompts.

    Args:
        folder: local folder of a causal or encoder language model with its tokenizer.
        prefix: the constant text.
        device: a torch device; dtype: of prefix and values, or None for `inference_dtype`.
        token_dtype: of the learnable token's position; None for `dtype`. float32 over bfloat16 keys and values costs
            a second copy of the weights and keeps differences that bfloat16 rounds away.
        share: whether prompts may share their prefixes.

    Attributes:
        shared: whether prompts share their prefixes.
        causal: whether a position sees only what comes before it.

    Raises:
        ValueError: the folder is no model, or names no language model with a tokenizer.
    """

    def __init__(
        self,
        folder: str | Path,
        prefix: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        token_dtype: torch.dtype | None = None,
        share: bool = True,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.utils.logging import disable_progress_bar

        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"llm: {str(folder)!r} is no model folder (it has no config.json); give a local folder")
        disable_progress_bar()
        ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.dtype = inference_dtype(device) if dtype is None else dtype
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=self.dtype)
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"llm: {str(folder)!r} is an encoder-decoder; give a causal model or an encoder")
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.token_dtype = self.dtype if token_dtype is None else token_dtype
        self.token_model = self.model
        if self.token_dtype != self.dtype:
            self.token_model = copy.deepcopy(self.model).to(self.token_dtype)
        self._embedding: nn.Module = model.get_input_embeddings()
        self.hidden_size: int = self._embedding.weight.shape[1]
        self.prefix_ids: list[int] = self.tokenizer(prefix)["input_ids"]
        if not self.prefix_ids:
            raise ValueError("prompt: the constant part is empty; give at least one line before the values")
        ends = {self.tokenizer.eos_token_id, getattr(self.tokenizer, "sep_token_id", None)}
        if len(self.prefix_ids) > 1 and self.prefix_ids[-1] in ends:
            # Some tokenizers close every text; the prompt goes on here.
            self.prefix_ids.pop()
        self.prefix: list[tuple[Tensor, Tensor]] = []
        self.token_prefix: list[tuple[Tensor, Tensor]] = []
        self.causal = self._is_causal()
        self.shared = share and self.causal and self._sees_whole_prompts()
        if self.shared:
            try:
                self._read_prefix()
            except Exception as error:  # any model code may refuse a foreign attention function
                logger.warning("%s does not take a shared prefix (%s); running whole prompts (slow)", folder, error)
                self.shared = False

    def initial_token(self) -> Tensor:
        """Start of the learnable token: the mean of the input embeddings, float32, shape `(hidden,)`."""
        weight: Tensor = self._embedding.weight
        return weight.float().mean(dim=0).detach().cpu()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the parts behind the prefix; never empty: an empty text repeats the last prefix token."""
        if not texts:
            return []
        made = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [one or self.prefix_ids[-1:] for one in made]

    # -- what the model allows ---------------------------------------------------------------------------------------

    def _is_causal(self) -> bool:
        """Whether the first position is blind to the last."""
        first = self.prefix_ids[0]
        other = next(i for i in range(3) if i != first)
        ids = torch.tensor([[first] * 4, [first] * 3 + [other]], device=self.device)
        with torch.no_grad():
            hidden = self.model(input_ids=ids).last_hidden_state[:, 0].float()
        return bool((hidden[0] - hidden[1]).abs().max() <= 1e-3 * hidden.abs().max())

    def _sees_whole_prompts(self) -> bool:
        """Whether every layer attends to the whole prompt, as far as the configuration tells."""
        config: object = self.model.config.get_text_config()
        longest = len(self.prefix_ids) + 256
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        full = set(kinds) <= {"full_attention"} if kinds else not window
        if full or (window and window >= longest and set(kinds or ()) <= {"full_attention", "sliding_attention"}):
            return True
        logger.warning("the model's attention is not over the whole prompt; running whole prompts (slow)")
        return False

    def _read_prefix(self) -> None:
        ids = torch.tensor([self.prefix_ids], device=self.device)
        size = ids.shape[1]
        made: list[tuple[Tensor, Tensor]] = []
        ok = torch.ones(1, size, size, dtype=torch.bool, device=self.device).tril()
        positions = torch.arange(size, device=self.device)[None]
        with torch.no_grad(), attending(self.model, Context(1, ok, made=made)):
            self.model(input_ids=ids, position_ids=positions, use_cache=False)
        if len({tensor.shape for pair in made for tensor in pair}) != 1:
            raise ValueError("its layers' keys and values have different shapes")
        self.prefix = [(keys.contiguous(), values.contiguous()) for keys, values in made]
        self.token_prefix = [(k.to(self.token_dtype), v.to(self.token_dtype)) for k, v in self.prefix]
