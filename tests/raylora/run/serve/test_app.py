"""The server as its clients meet it: OpenAI's own, and plain HTTP for what that one would not send."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

MODEL = "tuned"


@pytest.fixture(scope="module")
def client(running):
    from openai import OpenAI

    with OpenAI(base_url=running.url, api_key=running.key, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def prompts(old_rows) -> list[str]:
    return [json.loads(line)["prompt"] for line in (old_rows / "test.jsonl").read_text().splitlines()][:4]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def evaluated(tuned_run, prompts) -> list[dict]:
    """The answers that a host gives to the rows of `raylora evaluate`, of the adapter and of the base."""
    from raylora.build import build_task
    from raylora.data.tokenise import encode
    from raylora.run.folder import read_run
    from trainables.evaluation import evaluate_model
    from trainables.scored import over_base
    from trainables.session import load_model

    spec = read_run(tuned_run)[1]
    model, tokenizer = load_model(spec.model, "float32")
    told = encode(tokenizer, prompts, ["1"] * len(prompts))
    rows = [
        {"row": place, "prompt": text, "prompt_ids": ids, "response_ids": after, "response": "1", "answer": "1"}
        for place, (text, ids, after) in enumerate(zip(*told, strict=True))
    ]
    found: list[list[dict]] = []
    for adapter in (str(tuned_run / "adapter"), ""):
        found.append([])
        with over_base(model, tokenizer, adapter) as module:
            evaluate_model(module, rows, build_task(spec).scoring, tokenizer, split="test", predictions=found[-1])
    return [
        {"tuned": tuned["completion"], "base": base["completion"], "ids": row["prompt_ids"], "prompt": row["prompt"]}
        for tuned, base, row in zip(*found, rows, strict=True)
    ]


def test_a_chat_is_answered_as_evaluate_answers_the_row(client, prompts, evaluated) -> None:
    assert [row["tuned"] for row in evaluated] != [row["base"] for row in evaluated]
    for prompt, wanted in zip(prompts, evaluated, strict=True):
        found = client.chat.completions.create(model=MODEL, messages=user(prompt))
        (choice,) = found.choices
        assert (choice.message.role, choice.message.content) == ("assistant", wanted["tuned"])
        assert found.usage.prompt_tokens == len(wanted["ids"]) and found.model == MODEL
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
        assert choice.finish_reason == "length" if found.usage.completion_tokens == 4 else "stop"


def test_a_rendered_prompt_is_completed_to_the_same_answer(client, evaluated) -> None:
    texts = [row["prompt"] for row in evaluated]
    found = client.completions.create(model=MODEL, prompt=texts, max_tokens=4)
    assert [choice.text for choice in found.choices] == [row["tuned"] for row in evaluated]
    ids = client.completions.create(model=MODEL, prompt=evaluated[0]["ids"], max_tokens=4)
    assert ids.choices[0].text == evaluated[0]["tuned"]


def test_a_stream_is_the_answer_in_pieces_and_ends_with_the_counts(client, prompts) -> None:
    asked = {"model": MODEL, "messages": user(prompts[0]), "max_tokens": 12, "n": 2, "temperature": 1.0, "seed": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for place in (0, 1):
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == place]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == whole.choices[place].message.content
        assert [choice.finish_reason for choice in own if choice.finish_reason] == [whole.choices[place].finish_reason]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


def test_a_completion_is_streamed_as_text(client, evaluated) -> None:
    asked = {"model": MODEL, "prompt": evaluated[0]["prompt"], "max_tokens": 4, "stream": True}
    chunks = list(client.completions.create(**asked))
    assert "".join(chunk.choices[0].text for chunk in chunks) == evaluated[0]["tuned"]
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_an_answer_ends_before_a_stop_string(client, prompts) -> None:
    asked = {"model": MODEL, "messages": user(prompts[0]), "max_tokens": 40, "temperature": 1.0, "seed": 2}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stop = next(letter for letter in whole[3:] if letter.isascii())
    found = client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert (found.message.content, found.finish_reason) == (whole.partition(stop)[0], "stop")


def test_a_system_message_of_the_request_is_put_to_the_model(client, running) -> None:
    messages = [{"role": "developer", "content": "Add."}, *user("1 + 1?")]
    found = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1)
    told = [{"role": "system", "content": "Add."}, *user("1 + 1?")]
    wanted = running.service.prompts.tokenizer.apply_chat_template(told, add_generation_prompt=True)["input_ids"]
    assert found.usage.prompt_tokens == len(wanted)


def test_the_model_is_listed(client) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


# --- what is refused ---


def refused(running, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
    """Status and error of a request."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {running.key}", "Content-Type": "application/json", **headers}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(running.url + path, data, headers))
    told = json.loads(caught.value.read())["error"]
    assert set(told) == {"message", "type", "param", "code"} and "\n" not in told["message"]
    return caught.value.code, told


@pytest.mark.parametrize(
    ("changes", "param", "status"),
    [
        ({"temperature": 9}, "temperature", 400),
        ({"messages": []}, "messages", 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type", 400),
        ({"max_tokens": 10**6}, "messages", 400),
        ({"tools": [{"type": "function"}]}, "tools", 400),
        ({"model": "gpt"}, "model", 404),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_answered_names_the_field(running, changes, param, status) -> None:
    code, told = refused(running, "/chat/completions", {"messages": user("1 + 1?"), **changes})
    assert (code, told["param"], told["type"]) == (status, param, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/models", None, {"Authorization": "Bearer guess"}, 401),
        ("/chat/completions", {}, {"Authorization": ""}, 401),
        ("/chat/completions", b"{", {}, 400),
        ("/chat/completions", {}, {"Content-Type": "text/plain"}, 400),
        ("/embeddings", {}, {}, 404),
        ("/models/other", None, {}, 404),
        ("/completions", {"prompt": [10**6]}, {}, 400),
    ],
)
def test_other_refusals_have_the_form_of_openai(running, path, body, headers, status) -> None:
    assert refused(running, path, body, **headers)[0] == status


def test_health_needs_no_key(running) -> None:
    with urllib.request.urlopen(running.url.removesuffix("/v1") + "/health") as answer:
        assert json.load(answer) == {"status": "ok"}


def test_without_a_key_only_names_of_this_machine_are_answered_to(running) -> None:
    from dataclasses import replace

    from starlette.testclient import TestClient

    from raylora.run.serve.app import make_app

    app = make_app(replace(running.service, key=None))
    assert TestClient(app, base_url="http://localhost:8000").get("/v1/models").status_code == 200
    assert TestClient(app, base_url="http://elsewhere.example").get("/v1/models").status_code == 403
