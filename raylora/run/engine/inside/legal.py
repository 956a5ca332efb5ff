"""vLLM's own check of adapters: `{"adapters": [FOLDER, ..], "rank": 512}` on standard input.

The last line of output is a list with a word for each of them: "", or why vLLM refuses it.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Look at all of them: vLLM's import takes longest."""
    told: dict[str, Any] = json.load(sys.stdin)
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    config = LoRAConfig(max_lora_rank=told["rank"], max_loras=1)
    words = []
    for folder in told["adapters"]:
        try:
            PEFTHelper.from_local_dir(folder, max_position_embeddings=None).validate_legal(config)
            words.append("")
        except (ValueError, TypeError, KeyError, OSError) as error:
            words.append(" ".join(f"{error}".split()) or type(error).__name__)
    print("\n" + json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
