"""Which models are audited, as one line: `name=URI` for each, separated by commas.

The URI is a model's (see `model_uris`), `python://module:function`, or the `http(s)://` address of
an endpoint. What the lab can't read from such an adapter stands behind `#`, as `key=value` pairs
joined by `&`. Only what the line means stands here; a light leaf, since settings read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from cf_lab_resources.engine.model_uris import ModelUri, ModelUriError, parse_model_uri
from cf_lab_resources.errors import LabError

PYTHON, HTTP, HTTPS = "python", "http", "https"
STARTERS = "starter-balanced=starter://audited-balanced,starter-skewed=starter://audited-skewed"
EXAMPLES = (
    "name=hf://owner/name@revision, name=file:///absolute/folder, "
    "name=python://module:function#family=FAMILY or name=https://host/path#family=FAMILY"
)
# Seconds for one answer of an endpoint, which may run a large model on many pictures.
TIMEOUT = 60.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FAMILY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OPTIONS = {
    PYTHON: ("family",),
    HTTP: ("family", "authorization", "timeout"),
    HTTPS: ("family", "authorization", "timeout"),
}


class AuditedUriError(LabError, ValueError):
    """The line that says which models are audited is malformed."""


@dataclass(frozen=True)
class AuditedUri:
    """Where one audited model is.

    Attributes:
        name: what the lab calls it; part of its assets' and of the bucket's keys.
        uri: of the model, callable or endpoint, without options.
        family: of an adapter's architecture; None where it was not declared.
        authorization: NAME of the environment variable that holds an endpoint's Authorization
            header; the header itself is never part of a setting.
        timeout: seconds for one answer of an endpoint.
    """

    name: str
    uri: str
    family: str | None = None
    authorization: str | None = None
    timeout: float = TIMEOUT

    @property
    def scheme(self) -> str:
        """Such as `hf` or `https`."""
        return self.uri.partition("://")[0]

    @property
    def model(self) -> ModelUri | None:
        """The model's files; None of an adapter, which the lab holds no files of."""
        return None if self.scheme in _OPTIONS else parse_model_uri(self.uri)

    def __str__(self) -> str:
        given = {
            "family": self.family,
            "authorization": self.authorization,
            "timeout": None if self.timeout == TIMEOUT else f"{self.timeout:g}",
        }
        options = "&".join(f"{key}={quote(value)}" for key, value in given.items() if value)
        return f"{self.name}={self.uri}" + (f"#{options}" if options else "")


def parse_audited(text: str) -> tuple[AuditedUri, ...]:
    """Read the line; each part is the inverse of ``str``.

    Raises:
        AuditedUriError: it is malformed, or a name stands in it twice, or differs from another
            only in '.', '_' and '-', which steps of Dagster cannot be told apart by.
    """
    found = tuple(_parse_one(part.strip()) for part in text.split(",") if part.strip())
    names = [one.name for one in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise AuditedUriError(f"the name {repeated[0]} stands there twice; give each model its own")
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault(re.sub(r"\W", "_", name), name)
        if other != name:
            raise AuditedUriError(
                f"the names {other} and {name} differ in signs only; let letters or digits differ"
            )
    if not found:
        raise AuditedUriError(f"it names no model; write {EXAMPLES}")
    return found


def _parse_one(text: str) -> AuditedUri:
    name, equals, rest = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        # What was written may be a secret in the wrong place, and is not repeated.
        raise AuditedUriError(
            "a model has no name of letters, digits, '.', '_' and '-' before its URI; write "
            f"{EXAMPLES}"
        )
    uri, _, fragment = rest.partition("#")
    scheme = uri.partition("://")[0]
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    known = _OPTIONS.get(scheme, ())
    unknown = sorted(set(options) - set(known))
    if unknown or (fragment and not options):
        raise AuditedUriError(
            f"{name}: an option after '#' is not known to a {scheme}:// URI; known are "
            f"{', '.join(known) or 'none, since they are read from the model itself'}"
        )
    if scheme == PYTHON:
        _check_function(name, uri)
    elif scheme in (HTTP, HTTPS):
        _check_address(name, uri)
    else:
        try:
            uri = str(parse_model_uri(uri))
        except ModelUriError as error:
            raise AuditedUriError(f"{name}: {error}; or write {EXAMPLES}") from error
    return AuditedUri(
        name,
        uri,
        _matching(name, options, "family", _FAMILY, "letters, digits, '.', '_' and '-'"),
        _matching(name, options, "authorization", _VARIABLE, "the NAME of an environment variable"),
        _seconds(name, options.get("timeout")),
    )


def _check_function(name: str, uri: str) -> None:
    if not _FUNCTION.fullmatch(uri.partition("://")[2]):
        raise AuditedUriError(f"{name}: {uri} names no function; write python://module:function")


def _check_address(name: str, uri: str) -> None:
    try:
        parts = urlsplit(uri)
        bad = not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad or any(ord(c) < 33 or ord(c) == 127 for c in uri):
        raise AuditedUriError(f"{name}: its address is malformed; write https://host:port/path")
    if parts.username or parts.password or parts.query:
        raise AuditedUriError(
            f"{name}: no credentials and no query belong in its address, which is shown in reports "
            "and logs; put an Authorization header into an environment variable and write "
            "#authorization= and that variable's name"
        )


def _matching(
    name: str, options: dict[str, str], key: str, form: re.Pattern[str], what: str
) -> str | None:
    value = options.get(key)
    if value is not None and not form.fullmatch(value):
        raise AuditedUriError(f"{name}: {key} must be {what}")
    return value


def _seconds(name: str, text: str | None) -> float:
    try:
        seconds = TIMEOUT if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise AuditedUriError(f"{name}: timeout must be seconds, above 0 and at most 3600")
    return seconds
