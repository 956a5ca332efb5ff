"""Plain text, to go on writing: measured by perplexity, and nothing is generated."""

from __future__ import annotations

from raylora.tasks.published import PublishedTask


class CompletionTask(PublishedTask):
    """Rows with a `text`, or prompts and their continuations; see `raylora.data.columns` for what is recognised."""

    name = "completion"
    summary = "plain text, by perplexity"
    longest = 1
    default_metrics = ("perplexity", "loss")
