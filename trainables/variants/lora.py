"""LoRA: low-rank adaptation."""

from __future__ import annotations

from trainables.variants.core.peft_variant import PeftVariant


class Lora(PeftVariant):
    """W = W0 + (alpha / r) B A with A Kaiming-uniform and B zero: it starts at the pretrained function.

    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, equation 3.
    """

    name = "lora"
    summary = "low-rank adaptation, W0 + (alpha / r) B A"
    paper = "arXiv 2106.09685"
    parameters = "r (m + n)"
    shares_pass = "factors"
    rank_limited = False
