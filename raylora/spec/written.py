"""A spec as a person would begin one: what matters set, the rest named in comments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from raylora.spec.text import parse_value

TEMPLATE = """\
# What to tune, on what, and how long to wait. `raylora plan {file}` tells what this will do, `raylora tune {file}`
# does it. Whatever is left out is planned from the budget and the data; every field is in the documentation.

model: {model}            # a bundled alias, a local folder, or a hub id such as org/name
budget: {budget}          # for everything: data, search, final stage; 20m, 1h30m, 6h, or 100gpuh

task:
  name: {task}
{path}  # validation_rows: 64     # rows that score a trial; few rows: a fifth
  # proxy: 0.1              # part of the train rows that trials train on
  # max_new_tokens: 64      # longest answer that is generated to score one

search:
  searcher: language        # `raylora searchers` lists them
  # trials: 30              # configurations to train; the budget decides otherwise

space:
  variant: [lora]           # `raylora variants` lists them
{placement}  # rank: [4, 8, 16, 32]    # a list is searched, a single value is fixed
  # learning_rate: [1e-5, 1e-4, 1e-3]

# The recipe that the one found is compared with.
{recipe}
# resources:
#   hosts: 1                # trials at a time
#   gpus_per_host: 1        # GPUs of each
{rest}"""

RECIPE = {"rank": 8, "alpha": 16.0, "learning_rate": 2e-4, "batch_size": 16}


def written(
    *,
    model: str,
    data: str,
    task: str,
    budget: str,
    file: str = "spec.yaml",
    present: Mapping[str, Any] | None = None,
) -> str:
    """YAML with comments; values are quoted where YAML would misread them.

    Args:
        data: path of the rows; "" for a task that makes its own.
        present: parts of a spec that say how its user trains now (`raylora.run.recipes.reading.recipe_from`).
    """
    told = present or {}
    path = f"  path: {_quoted(data)}\n" if data else ""
    longest, placement = told.get("task", {}).get("max_length"), told.get("space", {}).get("placement")
    rest = {name: told[name] for name in ("quantization", "seed", "train", "final") if name in told}
    return TEMPLATE.format(
        model=_quoted(model),
        budget=_quoted(budget),
        task=_quoted(task),
        path=path + (f"  max_length: {longest}\n" if longest else ""),
        file=file,
        placement=f"  placement: {json.dumps(placement)}\n" if placement else "",
        recipe=_block({"default_recipe": told.get("default_recipe", RECIPE)}),
        rest=f"\n{_block(rest)}" if rest else "",
    )


def _block(part: Mapping[str, object]) -> str:
    return str(yaml.safe_dump(dict(part), sort_keys=False, allow_unicode=True))


def _quoted(text: str) -> str:
    """The text as a YAML scalar: bare where that is read as the text, else in JSON's quotes, which YAML reads."""
    try:
        bare = text.strip() == text and " #" not in text and parse_value(f"x: {text}") == {"x": text}
    except yaml.YAMLError:
        bare = False
    return text if bare else json.dumps(text)
