"""A chat model at an OpenAI-compatible address, asked once for each question."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import IO

from raylora.errors import UserError
from raylora.models import cache_folder

_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE = 60.0


class ServedModel:
    """Answers of a served model, kept on disk by what was asked of whom.

    Args:
        address: base of the service; `/chat/completions` is put behind it.
        model: its name there.
        key_variable: environment variable with the key, read when a request is made; never kept.
        cache: folder of the replies; None for the default one.
        retries: how often a failed request is tried again.
        timeout: of one request, in seconds.
        pause: before the first retry, in seconds; it doubles.
    """

    def __init__(
        self,
        *,
        address: str,
        model: str,
        key_variable: str,
        cache: str | None = None,
        retries: int = 5,
        timeout: float = 60.0,
        pause: float = 1.0,
    ) -> None:
        self.address, self.model, self.key_variable = address.rstrip("/"), model, key_variable
        self.retries, self.timeout, self.pause = retries, timeout, pause
        self.cache = Path(cache).expanduser() if cache else cache_folder().parent / "judge"

    def ask(self, question: str) -> str:
        """The reply, from disk where the same was asked before.

        Raises:
            UserError: no reply after all retries, or a refusal that trying again does not change.
        """
        body = {"model": self.model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        # Without the key: another person's key gets the same replies.
        asked = json.dumps([self.address, body], sort_keys=True).encode()
        file = self.cache / f"{hashlib.sha256(asked).hexdigest()}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(file.read_text(encoding="utf-8"))["reply"])
        reply = self._request(body)
        self._keep(file, {"model": self.model, "question": question, "reply": reply})
        return reply

    def _request(self, body: Mapping[str, object]) -> str:
        for attempt in range(self.retries + 1):
            wait = min(_LONGEST_PAUSE, self.pause * 2**attempt)
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                problem = f"{error.code} {error.reason}"
                if error.code not in _AGAIN:
                    break
                wait = min(_LONGEST_PAUSE, _seconds(error.headers.get("Retry-After"), wait))
            except (OSError, ValueError, LookupError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            if attempt < self.retries:
                time.sleep(wait)
        raise UserError.at(
            "judge.address",
            f"{self.address} gave no answer ({problem}); see that the service runs, knows the model "
            f"{self.model!r} and takes the key in {self.key_variable}",
            value=self.address,
        )

    def _once(self, body: Mapping[str, object]) -> str:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.address}/chat/completions", data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as answer:
            content = json.load(answer)["choices"][0]["message"]["content"]
        return content if isinstance(content, str) else ""

    def _keep(self, file: Path, content: dict[str, str]) -> None:
        # A cache that cannot be written costs requests, and nothing else.
        with contextlib.suppress(OSError):
            self.cache.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.cache)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            Path(name).replace(file)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: the key is for the address that the user named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _seconds(given: str | None, default: float) -> float:
    try:
        return max(0.0, float(given or default))
    except ValueError:
        return default
