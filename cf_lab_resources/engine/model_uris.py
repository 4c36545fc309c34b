"""Where a model comes from, as one line: `hf://`, `s3://`, `file://`, `starter://`, `artifact://`.

Only what the line means stands here, and it reads back to what it was made from; what is done
with it is in `model_sources`. A light leaf, since settings read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from cf_lab_resources.errors import LabError

HUB, S3, FOLDER, STARTER, ARTIFACT = "hf", "s3", "file", "starter", "artifact"
EXAMPLES = (
    "hf://owner/name@revision, s3://bucket/prefix, file:///absolute/folder (the last two with "
    "@sha256 where the content is to be pinned), starter://editor or artifact://sha256"
)

_SHA256 = "[0-9a-f]{64}"
_FORMS = {
    HUB: re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[\w.-]+(?:/[\w.-]+)*)", re.ASCII),
    S3: re.compile(rf"(?P<path>[a-z0-9.-]+/[^@?#\s]+?)(?:@(?P<revision>{_SHA256}))?", re.ASCII),
    FOLDER: re.compile(rf"(?P<path>/[^@?#\s]+?)(?:@(?P<revision>{_SHA256}))?", re.ASCII),
    STARTER: re.compile(r"(?P<path>[a-z0-9-]+)", re.ASCII),
    ARTIFACT: re.compile(rf"(?P<path>{_SHA256})", re.ASCII),
}


class ModelUriError(LabError, ValueError):
    """A model's URI is malformed."""


@dataclass(frozen=True)
class ModelUri:
    """The parts of a model's URI.

    Attributes:
        scheme: one of `HUB`, `S3`, `FOLDER`, `STARTER`, `ARTIFACT`.
        path: repository; bucket and prefix; folder; name of a starter model; hash of an artifact.
        revision: of the hub a commit, tag or branch; else the SHA-256 that the content must have,
            None for whatever lies there.
    """

    scheme: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        path = quote(self.path) if self.scheme == FOLDER else self.path
        return f"{self.scheme}://{path}" + (f"@{self.revision}" if self.revision else "")


def parse_model_uri(text: str) -> ModelUri:
    """Read a model's URI; the inverse of ``str``.

    Raises:
        ModelUriError: it is of none of the forms in `EXAMPLES`.
    """
    scheme, _, rest = text.partition("://")
    match = _FORMS[scheme].fullmatch(rest) if scheme in _FORMS else None
    if match:
        parts = match.groupdict()
        path = unquote(parts["path"]) if scheme == FOLDER else parts["path"]
        return ModelUri(scheme, path.rstrip("/") or "/", parts.get("revision"))
    if scheme == HUB and "@" not in rest:
        raise ModelUriError(
            f"model {text!r} names no revision, and a model that may change under its name can't "
            f"be audited; write {text}@ and the commit, as the hub's page of its files shows it"
        )
    raise ModelUriError(f"model {text!r} is of no form that is known; write {EXAMPLES}")
