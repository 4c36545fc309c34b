"""Audited models behind HTTP.

The endpoint is sent a POST with the JSON object

    {"prompts": ["..."], "images": ["base64 of a PNG", ...]}

and answers 200 with `{"scores": [[...], ...]}`: a row for each picture with a finite number or null
for each prompt. An answer of 5xx or 429 and a broken connection are tried again after a pause. A
timeout is not: whoever hangs on a picture hangs on it again, and the other pictures are waiting.
The Authorization header is read from an environment variable and appears in no message.
"""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.adapters import Scores, checked_scores, described
from cf_lab_resources.engine.audited_uris import AuditedUri
from cf_lab_resources.engine.contract import AnswerRefused, Ask, Audited, AuditedModelError
from cf_lab_resources.engine.questions import ASSOCIATION
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import httpx
    from PIL import Image

ATTEMPTS = 3
# Seconds before the second attempt; twice as long before each further one.
PAUSE = 0.5
# A thousand pictures' scores for a hundred prompts have about 2 MB.
MAX_ANSWER_BYTES = 16_000_000
# Not about a picture: the same for all, so that nothing is gained by asking on.
REFUSED = {401: "unauthorised", 403: "forbidden", 404: "not found", 405: "method not allowed"}
TOO_MANY = 429


class EndpointFailed(LabError):
    """An endpoint did not answer a question; the message names it."""


class _TryAgain(Exception):
    """A fault that may be gone a moment later."""


@dataclass(frozen=True)
class EndpointModel(Audited):
    """An endpoint as an audited model; made by `open_endpoint`.

    Attributes:
        source: its address and what was declared of it.
    """

    formats = (ASSOCIATION,)

    source: AuditedUri
    _headers: dict[str, str] = field(repr=False)

    def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
        """A function that posts pictures and prompts and looks at the scores that come back."""
        texts = list(prompts)

        def ask(images: Sequence[Image.Image]) -> Scores:
            body = {"prompts": texts, "images": [encoded(image) for image in images]}
            answer = self._post(json.dumps(body).encode())
            if not isinstance(answer, dict) or "scores" not in answer:
                raise AnswerRefused(f"{self.source.uri} answered without an object with scores")
            return checked_scores(answer["scores"], len(images), len(texts), self.source.uri)

        return ask

    def describe(self) -> dict[str, Any]:
        """See `Audited.describe`; what runs behind an endpoint has no hash."""
        return described(self.source, None)

    def _post(self, body: bytes) -> Any:
        import httpx

        with httpx.Client(timeout=self.source.timeout) as client:
            for attempt in range(ATTEMPTS):
                try:
                    return self._posted(client, body)
                except _TryAgain as error:
                    last = error
                if attempt + 1 < ATTEMPTS:
                    time.sleep(PAUSE * 2**attempt)
        raise EndpointFailed(f"{self.source.uri} failed {ATTEMPTS} times: {last}")

    def _posted(self, client: httpx.Client, body: bytes) -> Any:
        import httpx

        try:
            with client.stream("POST", self.source.uri, content=body, headers=self._headers) as got:
                self._check_status(got.status_code)
                content = self._read(got)
        except httpx.TimeoutException as error:
            raise self._late() from error
        except httpx.TransportError as error:
            raise _TryAgain(f"the connection failed ({type(error).__name__})") from error
        try:
            return json.loads(content)
        except ValueError as error:
            raise AnswerRefused(f"{self.source.uri} answered with what is no JSON") from error

    def _check_status(self, status: int) -> None:
        if status in REFUSED:
            raise AuditedModelError(
                f"{self.source.uri} answers {status} ({REFUSED[status]}); check its address, and "
                "the variable that #authorization= names"
            )
        if status >= 500 or status == TOO_MANY:
            raise _TryAgain(f"it answers {status}")
        if status != 200:
            raise EndpointFailed(f"{self.source.uri} answers {status}")

    def _read(self, answer: httpx.Response) -> bytes:
        """The body, within the time and size that are allowed: httpx bounds only each pause."""
        deadline = time.monotonic() + self.source.timeout
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise AnswerRefused(
                    f"{self.source.uri} answered with more than {MAX_ANSWER_BYTES:,} bytes"
                )
            if time.monotonic() > deadline:
                raise self._late()
        return bytes(content)

    def _late(self) -> EndpointFailed:
        return EndpointFailed(f"{self.source.uri} gave no answer in {self.source.timeout:g} s")


def open_endpoint(source: AuditedUri) -> EndpointModel:
    """An endpoint with its header; nothing is sent yet.

    Raises:
        AuditedModelError: The variable that is to hold the Authorization header is not set.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if source.authorization:
        secret = os.environ.get(source.authorization, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            raise AuditedModelError(
                f"{source.uri}: the variable {source.authorization} is to hold its Authorization "
                "header, and holds no line of ASCII; set it, like 'Bearer ...'"
            )
        headers["Authorization"] = secret
    return EndpointModel(source, headers)


def encoded(image: Image.Image) -> str:
    """A picture as base64 of an RGB PNG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
