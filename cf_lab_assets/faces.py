"""What the Dagster UI shows of assets and checks: columns, rows, pictures, lineage and links.

How each of them is written stands here; what is shown of an asset stands with the asset. A picture
is Markdown with the bytes in it, which Dagster keeps in its event log for ever: it is bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets import lineage, names
from cf_lab_resources import alerts
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

LIMIT, MEASURED, UNIT = "limit", "measured", "unit"
# What the lookup API answers about an asset, and at which path.
SERVED = {
    names.BIAS_REPORT: {"page of the current release": "/v1/report"},
    names.RELEASE_CURRENT: {"report page": "/v1/report", "lookup API": "/docs"},
}
# By name and type, and what it holds; of a document, whose types no Arrow schema knows.
Described = Mapping[str, tuple[str, str]]


def runbook(section: str) -> dg.MetadataValue:
    """Where the runbook says what to do when something of this section fails."""
    url = Settings.from_env().runbook_url
    link = alerts.runbook(section, url)
    return dg.MetadataValue.url(link) if url else dg.MetadataValue.path(link)


def with_links(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset's spec with the runbook's section about its group, and what the API serves of it."""
    links = {"runbook": runbook(str(spec.group_name))}
    api = Settings.from_env().api_url
    if api is not None and spec.key in SERVED:
        links |= {
            what: dg.MetadataValue.url(f"{api.rstrip('/')}{path}")
            for what, path in SERVED[spec.key].items()
        }
    return spec.merge_attributes(metadata=links)


def columns(
    schema: pa.Schema, meaning: Mapping[str, str], unique: Collection[str] = ()
) -> dg.TableSchema:
    """The columns of an Arrow table.

    Args:
        schema: names and types.
        meaning: of every column, by name.
        unique: names of columns in which no value comes twice; such are never null.

    Raises:
        KeyError: a column has no meaning.
    """
    return dg.TableSchema(
        [_column(field.name, str(field.type), meaning[field.name], unique) for field in schema]
    )


def described(fields: Described, unique: Collection[str] = ()) -> dg.TableSchema:
    """The columns of a document or a foreign table, by name."""
    return dg.TableSchema([_column(name, *about, unique) for name, about in fields.items()])


def _column(name: str, kind: str, meaning: str, unique: Collection[str]) -> dg.TableColumn:
    constraints = None
    if name in unique:
        constraints = dg.TableColumnConstraints(nullable=False, unique=True)
    return dg.TableColumn(name, kind, meaning, constraints)


def tabular(key: dg.AssetKey, rows: int, schema: dg.TableSchema, uri: str) -> dict[str, Any]:
    """Row count, columns, place of a table, and what each of its columns is made from."""
    made_from = lineage.MADE_FROM.get(key, {})
    found: dict[str, Any] = {
        "dagster/row_count": rows,
        "dagster/column_schema": dg.TableSchema(
            [_with_sources(column, made_from.get(column.name, ())) for column in schema.columns]
        ),
        "dagster/uri": uri,
    }
    if made_from:
        found["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(*source) for source in sources]
                for column, sources in made_from.items()
            }
        )
    return found


def _with_sources(column: dg.TableColumn, sources: Sequence[lineage.Source]) -> dg.TableColumn:
    """The column, whose description names its sources: the open UI does not draw their lineage."""
    if not sources:
        return column
    by_table: dict[str, list[str]] = {}
    for key, source in sources:
        by_table.setdefault(key.path[-1], []).append(source)
    named = "; ".join(f"{table}: {', '.join(ones)}" for table, ones in by_table.items())
    return dg.TableColumn(
        column.name, column.type, f"{column.description} (from {named})", column.constraints
    )


def table(
    rows: Sequence[Mapping[str, Any]], meaning: Mapping[str, str] | None = None
) -> dg.TableMetadataValue:
    """A small table: all rows have the same columns, whose types are told by their values."""
    named = list(rows[0]) if rows else list(meaning or {})
    schema = dg.TableSchema(
        [
            dg.TableColumn(name, _kind(row[name] for row in rows), (meaning or {}).get(name))
            for name in named
        ]
    )
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema)


def _kind(values: Iterable[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    for one, name in ((bool, "bool"), (int, "int"), (float, "float")):
        if kinds == {one} or (one is float and kinds == {int, float}):
            return name
    return "string"


def picture(png: bytes, what: str) -> dg.MarkdownMetadataValue:
    """A picture as the UI shows it without any server.

    Args:
        png: made smaller where it is too large for the event log.
        what: is said to whoever can't see it.
    """
    import io

    from PIL import Image

    from cf_lab_assets.counterfactuals.contact_sheet import EMBEDDED_BYTES, embedded, markdown

    shown = markdown(png, what)
    if len(shown) >= EMBEDDED_BYTES:
        shown = embedded(Image.open(io.BytesIO(png)).convert("RGB"), what)
    return dg.MetadataValue.md(shown)


def held_against(measured: float | str, limit: float | str, unit: str) -> dict[str, Any]:
    """What a check measured beside its limit; words where it could not be measured."""
    return {MEASURED: measured, LIMIT: limit, UNIT: unit}
