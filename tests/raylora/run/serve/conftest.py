"""A run whose adapter changes the model's answers, and a server of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY = "the-key"


@pytest.fixture(scope="session")
def tuned_run(copy_old_run, tmp_path_factory) -> Path:
    """The folder of a run whose adapter is twenty times what was trained: the base's answers are others."""
    from safetensors.torch import load_file, save_file

    run = copy_old_run("finished", tmp_path_factory.mktemp("tuned"))
    weights = run / "adapter" / "adapter_model.safetensors"
    larger = {name: tensor * (20 if "lora_B" in name else 1) for name, tensor in load_file(weights).items()}
    save_file(larger, weights, metadata={"format": "pt"})
    return run


@dataclass(frozen=True)
class Running:
    """A server and what it serves."""

    url: str
    key: str
    service: object


@pytest.fixture(scope="session")
def running(tuned_run):
    """The run behind a key, on a port of this machine."""
    from raylora.run.folder import read_run
    from raylora.run.serve import listening
    from raylora.run.serve.app import make_app
    from raylora.run.serve.listening import Address
    from raylora.run.serve.with_transformers import service
    from raylora.run.subject import find_subject

    listens = threading.Event()
    address = Address("tuned", "127.0.0.1", 0, KEY, lambda url: None)
    subject, spec = find_subject(str(tuned_run)), read_run(tuned_run)[1]
    with listening.bind(address.host, 0) as bound, service(subject, spec, address, "float32") as ready:
        server = listening.make_server(make_app(ready), listens.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert listens.wait(20)
        yield Running(address.url(bound.getsockname()[1]), KEY, ready)
        server.should_exit = True
        thread.join(10)
