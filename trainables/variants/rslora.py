"""rsLoRA: rank-stabilised scaling."""

from __future__ import annotations

from trainables.variants.core.peft_variant import PeftVariant


class RsLora(PeftVariant):
    """LoRA with scale alpha / sqrt(r), which keeps the size of updates from shrinking as the rank grows.

    Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, arXiv 2312.03732.
    """

    name = "rslora"
    summary = "LoRA with scale alpha / sqrt(r)"
    paper = "arXiv 2312.03732"
    parameters = "r (m + n)"
    shares_pass = "factors"
    rank_limited = False
    scale_rule = "alpha / sqrt(rank)"

    def lora_settings(self) -> dict[str, object]:
        return {"use_rslora": True}
