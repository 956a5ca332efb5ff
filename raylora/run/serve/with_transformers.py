"""The server of this package: the model in its process, with the tokens that `raylora evaluate` finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from raylora.build import build_task
from raylora.data.tokenise import model_positions
from raylora.errors import UserError
from raylora.run.quantized import laid_over
from raylora.run.serve import listening
from raylora.run.serve.app import Service, make_app
from raylora.run.serve.listening import Address
from raylora.run.serve.prompts import Prompts
from raylora.run.subject import Subject
from raylora.run.trouble import why
from raylora.spec import Spec
from trainables.protocols import Sampling


def run(subject: Subject, spec: Spec | None, address: Address, dtype: str, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        spec: of the run that it is the answer of; None for what is from elsewhere.
        dtype: as `trainables.session.pick_dtype` takes it.

    Raises:
        UserError: the address cannot be had, or the adapter does not belong to its base.
    """
    with listening.bind(address.host, address.port) as bound:
        url = address.url(bound.getsockname()[1])
        say(f"loading {subject.name}")
        with service(subject, spec, address, dtype) as ready:
            listening.run(make_app(ready), bound, lambda: address.told(url))


@contextlib.contextmanager
def service(subject: Subject, spec: Spec | None, address: Address, dtype: str) -> Iterator[Service]:
    """The adapter over its base, in memory for the duration. Arguments and errors: see `run`."""
    from trainables.answers import Answers
    from trainables.evaluation import end_tokens
    from trainables.modes import evaluating
    from trainables.scored import over_base
    from trainables.session import load_model

    quantization = "none" if spec is None or subject.run is None else laid_over(spec, subject.run)
    model, tokenizer = load_model(subject.folder, dtype, tokenizer_folder=subject.tokenizer, quantization=quantization)
    prompts = Prompts(tokenizer, spec)
    positions = model_positions({"config.json": (subject.folder / "config.json").read_bytes()})
    with contextlib.ExitStack() as held:
        try:
            module = held.enter_context(over_base(model, tokenizer, str(subject.adapter or "")))
        except (ValueError, RuntimeError, KeyError) as error:
            raise UserError(
                f"RUN: {subject.name} over {subject.base} cannot be served: {why(error)}",
                field="RUN",
                value=subject.name,
            ) from error
        held.enter_context(evaluating(module))
        answers = Answers(module, tokenizer, sorted({*end_tokens(module, tokenizer), *prompts.ends}))
        held.callback(answers.close)
        yield Service(address.name, answers, prompts, usual_sampling(spec), positions, address.key)


def usual_sampling(spec: Spec | None) -> Sampling:
    """How requests are answered that say nothing of it: as the run's rows are; else greedily, and to the end."""
    return Sampling(max_new_tokens=0) if spec is None else build_task(spec).scoring.sampling
