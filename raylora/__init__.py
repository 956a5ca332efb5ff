"""raylora: give it a base model, a task and a budget; it finds the LoRA recipe.

Importing this package is quick: torch, ray and transformers load only when something needs them.
"""

__version__ = "0.1.0"
