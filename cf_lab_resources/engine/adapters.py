"""Audited models that the lab does not run itself: a Python callable, or an endpoint over HTTP.

Both take pictures and prompts and give a score of each picture for each prompt: any finite number
whose higher values mean a better match, and `None` (`null` in JSON) where there is none. What they
are is not known from files, so that whoever configures one declares its family.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.audited_uris import PYTHON, AuditedUri
from cf_lab_resources.engine.contract import AnswerRefused, Ask, Audited, AuditedModelError
from cf_lab_resources.engine.families import family
from cf_lab_resources.engine.folders import file_hash
from cf_lab_resources.engine.questions import ASSOCIATION

if TYPE_CHECKING:
    from PIL import Image

Scores = list[list[float]]


def open_adapter(source: AuditedUri) -> Audited:
    """The callable or endpoint that a URI names.

    Raises:
        AuditedModelError: It is not there, or a variable that it needs is not set.
    """
    from cf_lab_resources.engine.endpoint import open_endpoint

    return load_callable(source) if source.scheme == PYTHON else open_endpoint(source)


@dataclass(frozen=True)
class CallableModel(Audited):
    """A Python function as an audited model; made by `load_callable`.

    Attributes:
        source: what names it.
        function: takes a list of RGB pictures and a list of prompts, gives scores of shape
            (pictures, prompts).
        sha256: of the file that it is written in, None where there is none.
    """

    formats = (ASSOCIATION,)

    source: AuditedUri
    function: Callable[[list[Any], list[str]], Any] = field(repr=False)
    sha256: str | None = None

    def associate(self, prompts: Sequence[str]) -> Ask[Sequence[float]]:
        """A function that calls the function and looks at what it gives."""
        texts = list(prompts)

        def ask(images: Sequence[Image.Image]) -> Scores:
            given = self.function([image.convert("RGB") for image in images], list(texts))
            return checked_scores(given, len(images), len(texts), self.source.uri)

        return ask

    def describe(self) -> dict[str, Any]:
        """See `Audited.describe`."""
        return described(self.source, self.sha256)


def load_callable(source: AuditedUri) -> CallableModel:
    """Import the function that `python://module:function` names.

    Raises:
        AuditedModelError: The module can't be imported, or has no such function.
    """
    module_name, _, function_name = source.uri.partition("://")[2].partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise AuditedModelError(
            f"{source.uri}: {module_name} can't be imported ({type(error).__name__}: {error}); "
            "install it where the lab runs, or put its folder on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise AuditedModelError(
            f"{source.uri}: {module_name} has no function {function_name}; name one that takes "
            "pictures and prompts"
        )
    file = inspect.getsourcefile(module)
    sha256 = file_hash(Path(file)) if file and Path(file).is_file() else None
    return CallableModel(source, function, sha256)


def checked_scores(given: Any, pictures: int, prompts: int, origin: str) -> Scores:
    """What an adapter gave, as numbers; NaN where it gave none.

    Args:
        given: a row for each picture with a number or None for each prompt.
        pictures: how many rows there must be.
        prompts: how many numbers in each.
        origin: of the answer, for messages.

    Raises:
        AnswerRefused: It has another shape, or holds something else.
    """
    rows = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(rows, list | tuple) or len(rows) != pictures:
        raise AnswerRefused(
            f"{origin} gave {_what(rows)} where a list of {pictures} rows, one for each picture, "
            "was asked for"
        )
    return [_checked_row(row, prompts, origin) for row in rows]


def _checked_row(given: Any, prompts: int, origin: str) -> list[float]:
    import math

    row = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(row, list | tuple) or len(row) != prompts:
        raise AnswerRefused(
            f"{origin} gave {_what(row)} for a picture where {prompts} scores, one for each "
            "prompt, were asked for"
        )
    numbers = []
    for one in row:
        value = one.item() if hasattr(one, "item") else one
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise AnswerRefused(f"{origin} gave {_what(value)} where a score was asked for")
        if value is not None and not math.isfinite(value):
            raise AnswerRefused(f"{origin} gave {value} as a score, which must be finite or null")
        numbers.append(math.nan if value is None else float(value))
    return numbers


def _what(value: Any) -> str:
    """Of a value, what a message shows; its content may be long or private."""
    sized = isinstance(value, list | tuple | dict | str)
    return f"{type(value).__name__} of length {len(value)}" if sized else type(value).__name__


def described(source: AuditedUri, sha256: str | None) -> dict[str, Any]:
    """What is known of an adapter: its address and what was declared."""
    declared = family(source.family) if source.family else None
    return {
        "model_type": declared,
        "families": [declared] if declared else [],
        "architectures": [],
        "parameters": None,
        "dimension": None,
        "dtype": None,
        "image_processor": {},
        "tokenizer": None,
        "sha256": sha256,
        "files": {},
        "uri": source.uri,
    }
