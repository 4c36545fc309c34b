"""`cf-lab rewrite`: captions in, a line each, and their counterfactuals out, a JSON object each."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from cf_lab_assets.counterfactuals.rewrite import CannotRewrite, Rewriter
from cf_lab_assets.counterfactuals.taxonomy import Taxonomy, TaxonomyError
from cf_lab_assets.sources.captions import MAX_CAPTION_CHARACTERS
from cf_lab_resources.errors import LabError

MOST_BYTES = 1024 * 1024  # of a line; longer ones are no captions


class BadLine(LabError):
    """A line that holds no caption."""


def targets(
    taxonomy: Taxonomy, attributes: Sequence[str], to: Sequence[str]
) -> list[dict[str, str]]:
    """What each caption is rewritten to: every combination of the attributes' values.

    Args:
        taxonomy: knows attributes and values.
        attributes: their names.
        to: values of any of them; an attribute of which none is given has all of its values.

    Raises:
        TaxonomyError: an attribute or a value is not known, or no attribute is named.
    """
    if not attributes:
        raise TaxonomyError(f"no attribute is named; use some of {', '.join(taxonomy.attributes)}")
    chosen: dict[str, list[str]] = {name: [] for name in attributes if taxonomy.values(name)}
    for text in to:
        owners = [name for name in chosen if _names(taxonomy, name, text)]
        if len(owners) != 1:
            known = "; ".join(f"{name}: {', '.join(taxonomy.values(name))}" for name in chosen)
            raise TaxonomyError(f"{text!r} is no value of {', '.join(chosen)}; use some of {known}")
        chosen[owners[0]].append(taxonomy.value(owners[0], text))
    values = [chosen[name] or list(taxonomy.values(name)) for name in chosen]
    return [dict(zip(chosen, row, strict=True)) for row in itertools.product(*values)]


def _names(taxonomy: Taxonomy, attribute: str, text: str) -> bool:
    try:
        return bool(taxonomy.value(attribute, text))
    except TaxonomyError:
        return False


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, without the byte order mark that some editors put first.

    A line that is longer than `MOST_BYTES` is cut short after one byte more, which is enough to
    tell; its rest is passed over without being held.
    """
    mark = codecs.BOM_UTF8
    while line := file.readline(MOST_BYTES + 1):
        rest = line
        while len(rest) > MOST_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MOST_BYTES + 1)
        yield line.removeprefix(mark)
        mark = b""


def rewrite_lines(
    lines: Iterable[bytes], rewriter: Rewriter, wanted: Sequence[dict[str, str]]
) -> Iterator[bytes]:
    """The output lines of input lines, in their order: one for each line and each of `wanted`.

    Args:
        lines: captions, or JSON objects with a `caption`, in UTF-8.
        rewriter: does the work.
        wanted: values by attribute.

    Yields:
        JSON objects with `caption`, `attribute`, `from`, `to`, and `counterfactual` with its
        `explanation` or `refused` with `reason` and `detail`. For one attribute, `attribute`,
        `from` and `to` are strings, for several a list and two objects.
    """
    import orjson

    for line in lines:
        try:
            caption = read_caption(line)
        except BadLine as error:
            refused = {"reason": "bad_line", "detail": str(error)}
            for values in wanted:
                yield orjson.dumps({"caption": None, **_named({}, values), "refused": refused})
            continue
        for values in wanted:
            yield orjson.dumps(_outcome(rewriter, caption, values))


def read_caption(line: bytes) -> str:
    """The caption of a line.

    Raises:
        BadLine: it is not UTF-8, too long, or JSON without a caption.
    """
    if len(line) > MOST_BYTES:
        raise BadLine(f"the line has more than {MOST_BYTES:,} bytes; captions are shorter")
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadLine("the line is not valid UTF-8; save the file as UTF-8") from error
    caption: Any = text
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadLine(f"the line is not valid JSON: {error}") from error
        caption = content.get("caption")
        if not isinstance(caption, str):
            raise BadLine("the JSON object has no string `caption`")
    if len(caption) > MAX_CAPTION_CHARACTERS:
        raise BadLine(
            f"the caption has {len(caption):,} characters; the limit is {MAX_CAPTION_CHARACTERS:,}"
        )
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        raise BadLine("the caption holds half of a surrogate pair") from error
    return str(caption)


def _outcome(rewriter: Rewriter, caption: str, values: dict[str, str]) -> dict[str, Any]:
    try:
        made = rewriter.rewrite(caption, values)
    except CannotRewrite as error:
        known = {name: rewriter.named_value(caption, name) for name in values}
        refused = {"reason": error.reason, "detail": str(error)}
        return {"caption": caption, **_named(known, values), "refused": refused}
    return {
        "caption": caption,
        **_named(made.from_values, values),
        "counterfactual": made.caption,
        "explanation": [change._asdict() for change in made.changes],
    }


def _named(from_values: dict[str, str | None], to_values: dict[str, str]) -> dict[str, Any]:
    if len(to_values) == 1:
        (name,) = to_values
        return {"attribute": name, "from": from_values.get(name), "to": to_values[name]}
    known = {name: from_values.get(name) for name in to_values}
    return {"attribute": list(to_values), "from": known, "to": to_values}
