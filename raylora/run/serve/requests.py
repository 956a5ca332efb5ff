"""What clients ask for: the bodies of OpenAI's chat completions and completions, checked, and refusals in its form.

Fields and errors: the OpenAI API reference (platform.openai.com/docs/api-reference).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trainables.protocols import Sampling

Text = Annotated[str, Field(min_length=1)]
Kind = TypeVar("Kind", bound="Body")

# What OpenAI gives completions for which no length is asked.
SHORT = 16


class RequestError(Exception):
    """A request that is refused, or that failed.

    Attributes:
        status: of HTTP.
        param: the field that is wrong, or None.
        code: a word for programs, or None.
        kind: OpenAI's `type`.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.kind = status, param, code, kind

    def body(self) -> dict[str, object]:
        """As clients read it."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """Of a stream: whether a last chunk has the counts."""

    include_usage: bool = False


class Body(BaseModel):
    """What both kinds of request have. None leaves the choice to the server.

    Fields that nobody answers for are left unread where their value asks for nothing, and refused elsewhere.
    """

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = None
    stop: Text | list[Text] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Field -> the values that ask for nothing.
    unanswered: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "logit_bias": ({},),
        "presence_penalty": (0, 0.0),
        "frequency_penalty": (0, 0.0),
        "response_format": ({"type": "text"},),
    }

    @property
    def longest(self) -> int | None:
        """Tokens of an answer at most, where that is asked for."""
        return self.max_tokens

    @property
    def counted(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, usual: Sampling) -> Sampling:
        """How the answers are drawn.

        Args:
            usual: what holds where nothing is asked; its length stays, see `longest`. Draws that are given no seed
                have one of their own each time.
        """
        temperature = usual.temperature if self.temperature is None else self.temperature
        top_p = usual.top_p if self.top_p is None else self.top_p
        stop = usual.stop if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return replace(
            usual,
            temperature=0.0 if top_p == 0 else temperature,
            top_p=top_p or 1.0,
            n=self.n or 1,
            stop=stop,
            seed=secrets.randbits(63) if self.seed is None else abs(self.seed),
        )


class Part(BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation; what it has beside role and content goes to the chat template as it is."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    def turn(self) -> dict[str, Any]:
        """As chat templates take it."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        return {**(self.model_extra or {}), "role": role, "content": content or ""}


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    unanswered: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **Body.unanswered,
        "tools": ([],),
        "functions": ([],),
        "logprobs": (False,),
        "audio": (),
    }

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Body):
    """`POST /v1/completions`. A prompt is text or token ids, or several of either."""

    prompt: str | list[int] | list[str] | list[list[int]]

    unanswered: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **Body.unanswered,
        "logprobs": (),
        "echo": (False,),
        "suffix": ("",),
        "best_of": (1,),
    }

    @field_validator("prompt")
    @classmethod
    def _some(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and not prompt:
            raise ValueError("give one prompt at least")
        return prompt

    @property
    def longest(self) -> int | None:
        return self.max_tokens or SHORT

    def prompts(self) -> list[str | list[int]]:
        """One or several."""
        told: Any = self.prompt
        several = isinstance(told, list) and not isinstance(told[0], int)
        return list(told) if several else [told]


def read_body(kind: type[Kind], content: bytes) -> Kind:
    """The body of a request.

    Raises:
        RequestError: it is no JSON, a field has a value that it cannot have, or asks for what there is not here.
    """
    try:
        told = json.loads(content)
    except ValueError as error:
        raise RequestError(f"the body is no JSON: {error}") from None
    try:
        body = kind.model_validate(told)
    except ValidationError as error:
        raise _invalid(error) from None
    for name, neutral in kind.unanswered.items():
        value = (body.model_extra or {}).get(name)
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise RequestError(
                f"{name} = {json.dumps(value)}: not answered for here; leave it out, or serve with another engine",
                param=name,
                code="unsupported_parameter",
            )
    return body


def _invalid(error: ValidationError) -> RequestError:
    """What is wrong, in one line: of the errors of a union's types that of the type that came nearest."""
    found = error.errors(include_url=False, include_context=False)
    nearest = max((one for one in found if one["loc"][:1] == found[0]["loc"][:1]), key=lambda one: len(one["loc"]))
    # pydantic puts the names of a union's types among those of fields.
    named = (str(part) for part in nearest["loc"] if isinstance(part, int) or part.isidentifier())
    field = ".".join(part for part in named if part not in ("str", "int"))
    told = nearest["msg"].removeprefix("Value error, ")
    return RequestError(f"{field}: {told}" if field else told, param=field or None)
