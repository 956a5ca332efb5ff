"""OpenAI's interface over `trainables.answers`, as an ASGI application.

`POST /v1/chat/completions` and `/v1/completions`, whole or streamed, `GET /v1/models`, and `GET /health`, which needs
no key. Errors have OpenAI's form with status 400, 401, 403 (a name that is not this machine's), 404 or 500.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from raylora.run.serve.prompts import Prompts
from raylora.run.serve.requests import Body, ChatBody, CompletionBody, Kind, RequestError, read_body
from trainables.answers import Answers, Piece, Request
from trainables.protocols import Sampling

LOCAL = ("localhost", "127.0.0.1", "[::1]")
# Bytes of a body: conversations are far smaller.
LARGEST = 16 << 20
# Seconds between two looks at whether the client is still there.
LOOK_S = 1.0
_KINDS: dict[type[Body], tuple[str, str]] = {
    ChatBody: ("chatcmpl", "chat.completion"),
    CompletionBody: ("cmpl", "text_completion"),
}


@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        name: of the model, as clients ask for it.
        answers, prompts: the model, and how it is asked.
        usual: the sampling of requests that say nothing of it; its length is that of a chat's answer, and 0 as long as
            the model has room.
        positions: tokens of a prompt and its answer at most; None for any.
        key: what clients have to show; None for nothing, and then only this machine's own names are answered to.
    """

    name: str
    answers: Answers
    prompts: Prompts
    usual: Sampling
    positions: int | None = None
    key: str | None = None


def make_app(service: Service) -> Starlette:
    """The application."""
    born = int(time.time())
    card = {"id": service.name, "object": "model", "created": born, "owned_by": "raylora"}

    async def models(request: HttpRequest) -> Response:
        _check_key(service, request)
        return JSONResponse({"object": "list", "data": [card]})

    async def model(request: HttpRequest) -> Response:
        _check_key(service, request)
        _check_model(service, request.path_params["name"])
        return JSONResponse(card)

    async def chat(request: HttpRequest) -> Response:
        body = await _body(service, request, ChatBody)
        ids = service.prompts.chat([message.turn() for message in body.messages])
        return await _answer(service, request, body, [ids])

    async def complete(request: HttpRequest) -> Response:
        body = await _body(service, request, CompletionBody)
        return await _answer(service, request, body, [service.prompts.text(prompt) for prompt in body.prompts()])

    async def health(request: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", complete, methods=["POST"]),
        ],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _unknown,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )


# --- what is checked ---


def _check_key(service: Service, request: HttpRequest) -> None:
    if service.key is None:
        # A page elsewhere whose name was turned to this address asks by that name.
        host = request.headers.get("host", "")
        if host.lower().rpartition(":")[0] not in LOCAL and host.lower() not in LOCAL:
            raise RequestError(f"Host {host!r}: without a key only localhost is answered to", status=403)
        return
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), service.key.encode()):
        told = "wrong key" if shown else "no key; send it as Authorization: Bearer KEY"
        raise RequestError(told, status=401, code="invalid_api_key")


def _check_model(service: Service, name: str | None) -> None:
    if name not in (None, service.name):
        raise RequestError(
            f"model {name!r} is not served; there is {service.name!r}",
            status=404,
            param="model",
            code="model_not_found",
        )


async def _body(service: Service, request: HttpRequest, kind: type[Kind]) -> Kind:
    _check_key(service, request)
    # Browsers send other kinds of content to other sites without asking those.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("the body has to be JSON; send the header Content-Type: application/json")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST:
            raise RequestError(f"the body is too large; allowed: {LARGEST} bytes")
    body = read_body(kind, bytes(content))
    _check_model(service, body.model)
    return body


def _limits(service: Service, body: Body, prompts: Sequence[Sequence[int]]) -> list[int]:
    """The longest answer to each prompt, tokens."""
    longest, limits = body.longest, []
    for ids in prompts:
        room = None if service.positions is None else service.positions - len(ids)
        if room is not None and (room < 1 or (longest is not None and longest > room)):
            raise RequestError(
                f"the prompt has {len(ids)} tokens and asks for {longest or 1} more; the model has room for "
                f"{service.positions} in all",
                param="messages" if isinstance(body, ChatBody) else "prompt",
                code="context_length_exceeded",
            )
        wanted = longest or service.usual.max_new_tokens or room or 1024
        limits.append(wanted if room is None else min(wanted, room))
    return limits


# --- what is answered ---

Event = tuple[int, Piece | Exception]
"""Which of the prompts, and what became of it."""


class _Asked:
    """A request's prompts with the model; what they are told waits in `events`."""

    def __init__(self, service: Service, body: Body, prompts: Sequence[Sequence[int]]) -> None:
        self.body, self.service = body, service
        self.prefix, self.object = _KINDS[type(body)]
        self.id, self.created = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time())
        self.chat = isinstance(body, ChatBody)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        sampling = body.sampling(service.usual)
        self.n, self.left = sampling.n, sampling.n * len(prompts)
        self.tokens = [0] * self.left
        self.prompt_tokens = sum(map(len, prompts))
        limits = _limits(service, body, prompts)
        self.requests = [
            Request(ids, replace(sampling, max_new_tokens=limit), self._told(place))
            for place, (ids, limit) in enumerate(zip(prompts, limits, strict=True))
        ]
        service.answers.submit(self.requests)

    def _told(self, place: int) -> Any:
        def tell(piece: Piece | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                self.loop.call_soon_threadsafe(self.events.put_nowait, (place, piece))

        return tell

    async def pieces(self, request: HttpRequest) -> AsyncIterator[tuple[int, Piece]]:
        """All pieces, each with the index of its choice; the model stops where the client has gone.

        Raises:
            RequestError: the model failed.
        """
        looked = self.loop.time()
        try:
            while self.left:
                if self.loop.time() - looked > LOOK_S:
                    looked = self.loop.time()
                    if await request.is_disconnected():
                        raise ClientDisconnect
                try:
                    place, piece = await asyncio.wait_for(self.events.get(), timeout=LOOK_S)
                except TimeoutError:
                    continue
                if isinstance(piece, Exception):
                    print(f"raylora: serve: {type(piece).__name__}: {piece}", file=sys.stderr, flush=True)
                    raise RequestError(f"the model failed: {piece}", status=500, kind="server_error")
                index = place * self.n + piece.answer
                self.tokens[index] = piece.tokens
                self.left -= piece.reason is not None
                yield index, piece
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Have the model stop."""
        for one in self.requests:
            one.cancelled = True

    def usage(self) -> dict[str, int]:
        """Tokens of the prompts, each once, and of the answers, with those that ended them."""
        written = sum(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }

    def told(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A whole answer, or a chunk of a stream."""
        streamed = self.chat and bool(self.body.stream)
        return {
            "id": self.id,
            "object": f"{self.object}.chunk" if streamed else self.object,
            "created": self.created,
            "model": self.service.name,
            "choices": choices,
            **more,
        }

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """One answer, whole."""
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def change(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """What a chunk adds to an answer."""
        said = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer in a chat, which tells whose turn it is."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }


async def _answer(service: Service, request: HttpRequest, body: Body, prompts: Sequence[Sequence[int]]) -> Response:
    asked = _Asked(service, body, prompts)
    if body.stream:
        return StreamingResponse(_chunks(asked, request), media_type="text/event-stream")
    texts, reasons = [""] * len(asked.tokens), [""] * len(asked.tokens)
    async for index, piece in asked.pieces(request):
        texts[index] += piece.text
        reasons[index] = piece.reason or ""
    choices = [asked.choice(index, text, reasons[index]) for index, text in enumerate(texts)]
    return JSONResponse(asked.told(choices, usage=asked.usage()))


async def _chunks(asked: _Asked, request: HttpRequest) -> AsyncIterator[str]:
    """Server-sent events. An error comes as one, too: the status has gone out before."""
    more: dict[str, Any] = {"usage": None} if asked.body.counted else {}
    try:
        if asked.chat:
            for index in range(asked.n):
                yield _event(asked.told([asked.opening(index)], **more))
        async for index, piece in asked.pieces(request):
            if piece.text:
                yield _event(asked.told([asked.change(index, piece.text, None)], **more))
            if piece.reason:
                yield _event(asked.told([asked.change(index, "", piece.reason)], **more))
        if asked.body.counted:
            yield _event(asked.told([], usage=asked.usage()))
    except RequestError as error:
        yield _event(error.body())
    except ClientDisconnect:
        return
    finally:
        asked.cancel()
    yield "data: [DONE]\n\n"


def _event(told: dict[str, Any]) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n"


# --- what is refused ---


async def _refused(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _unknown(request: HttpRequest, error: Exception) -> Response:
    """Another path, or another method."""
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path}: no such request"
    return await _refused(request, RequestError(told, status=error.status_code))


async def _gone(request: HttpRequest, error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=400)


async def _failed(request: HttpRequest, error: Exception) -> Response:
    told = f"{type(error).__name__}: {error}"
    return await _refused(request, RequestError(told, status=500, kind="server_error"))
