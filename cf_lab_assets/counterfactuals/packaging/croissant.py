"""The package in Croissant 1.1 with the RAI 1.0 vocabulary, made and validated by mlcroissant.

Properties that mlcroissant 1.1 has no field for (synthetic data, PROV) are added to its JSON.
What is not known, such as an address on the web, is left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging import responsible
from cf_lab_assets.counterfactuals.packaging.manifest import FORMAT, File
from cf_lab_assets.counterfactuals.packaging.shards import SPLIT

if TYPE_CHECKING:
    import datasets

    from cf_lab_assets.counterfactuals.packaging.facts import Facts
    from cf_lab_resources.publication import Publication

CROISSANT = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
PROV = "http://www.w3.org/ns/prov#"
PARQUET, TAR, LINES = "application/x-parquet", "application/x-tar", "application/jsonlines"


@dataclass(frozen=True)
class Issues:
    """What mlcroissant says of a document."""

    errors: Sequence[str]
    warnings: Sequence[str]


def document(
    facts: Facts,
    publication: Publication,
    features: Mapping[str, datasets.Features],
    files: Sequence[File],
    made_on: str,
) -> dict[str, Any]:
    """croissant.json.

    Args:
        facts: of the dataset.
        publication: licence and publisher.
        features: of "pairs" and "sets".
        files: Parquet, tar and JSON-lines files of the package.
        made_on: date of the package, ISO 8601.
    """
    import mlcroissant as mlc

    context = _context()
    name = f"counterfactual-sets-{facts.content_hash[:12]}"
    publisher = publication.publisher
    metadata = mlc.Metadata(
        ctx=context,
        conforms_to=[CROISSANT, RAI],
        name=name,
        description=(
            f"{facts.pairs} image-text pairs in {facts.sets} counterfactual sets: the same scene "
            "once for each prompted value of an attribute, in picture and caption, to audit "
            "vision-language models with."
        ),
        # The major number changes when readers must; what the dataset holds is told apart by its
        # content hash, as build metadata of semantic versioning.
        version=f"{FORMAT}.0.0+{facts.content_hash[:12]}",
        license=[publication.license or "unknown: not stated by the publisher"],
        date_published=made_on,
        cite_as=_citation(name, facts, publisher, made_on),
        publisher=[mlc.Organization(ctx=context, name=publisher)] if publisher else [],
        in_language=["en"],
        keywords=["counterfactual", "bias audit", "vision-language", "synthetic"],
        distribution=_distribution(context, files),
        record_sets=[_record_set(context, config, found) for config, found in features.items()],
        **responsible.properties(facts),
    )
    return {**metadata.to_json(), **responsible.origin(facts)}


def _context() -> Any:
    """Croissant 1.1's JSON-LD context; mlcroissant starts from the one of 1.0."""
    import mlcroissant as mlc

    added = {
        "arrayShape": "cr:arrayShape",
        "containedIn": "cr:containedIn",
        "description": {"@container": "@language"},
        "isArray": "cr:isArray",
        "name": {"@container": "@language"},
        "prov": PROV,
    }
    rdf = mlc.Rdf(context={**mlc.Rdf().context, **added})
    return mlc.Context(conforms_to=CROISSANT, rdf=rdf)


def _citation(name: str, facts: Facts, publisher: str | None, made_on: str) -> str:
    author = f"author={{{publisher}}}, " if publisher else ""
    return (
        f"@misc{{{name}, {author}title={{Counterfactual image-text sets}}, "
        f"year={{{made_on[:4]}}}, note={{content hash {facts.content_hash}}}}}"
    )


def _distribution(context: Any, files: Sequence[File]) -> list[Any]:
    import mlcroissant as mlc

    kinds = {".parquet": PARQUET, ".tar": TAR, ".jsonl": LINES}
    objects = [
        mlc.FileObject(
            ctx=context,
            id=file.path,
            name=file.path,
            content_url=file.path,
            content_size=f"{file.bytes} B",
            encoding_formats=[kinds[Path(file.path).suffix]],
            sha256=file.sha256,
        )
        for file in files
    ]
    sets = [
        mlc.FileSet(
            ctx=context,
            id=f"{config}-files",
            name=f"{config}-files",
            encoding_formats=[PARQUET],
            includes=[f"{folder}/{SPLIT}-*.parquet"],
        )
        for config, folder in (("pairs", "data"), ("sets", "sets"))
    ]
    return [*objects, *sets]


def _record_set(context: Any, config: str, features: datasets.Features) -> Any:
    import mlcroissant as mlc

    return mlc.RecordSet(
        ctx=context,
        id=config,
        name=config,
        key=[f"{config}/{config[:-1]}_id"],
        fields=[_field(context, config, name, found) for name, found in features.items()],
    )


def _field(context: Any, config: str, column: str, feature: Any) -> Any:
    import datasets
    import mlcroissant as mlc

    found = f"{config}/{column}"
    if isinstance(feature, Mapping):
        return mlc.Field(
            ctx=context,
            id=found,
            name=column,
            sub_fields=[
                mlc.Field(
                    ctx=context,
                    id=f"{found}/{key}",
                    name=key,
                    data_types=[mlc.DataType.TEXT],
                    source=_source(context, config, column, f"'{key}'"),
                )
                for key in feature
            ],
        )
    if isinstance(feature, datasets.Image):
        source = _source(context, config, column, "bytes")
        kind = mlc.DataType.IMAGE_OBJECT
        return mlc.Field(ctx=context, id=found, name=column, data_types=[kind], source=source)
    repeated = isinstance(feature, datasets.List)
    value = feature.feature if repeated else feature
    return mlc.Field(
        ctx=context,
        id=found,
        name=column,
        data_types=[_data_type(value.dtype)],
        source=_source(context, config, column),
        **({"is_array": True, "array_shape": "-1"} if repeated else {}),
    )


def _data_type(dtype: str) -> str:
    import mlcroissant as mlc

    if dtype == "bool":
        return str(mlc.DataType.BOOL)
    if dtype.startswith(("int", "uint")):
        return str(mlc.DataType.INTEGER)
    return str(mlc.DataType.FLOAT if dtype.startswith("float") else mlc.DataType.TEXT)


def _source(context: Any, config: str, column: str, json_path: str | None = None) -> Any:
    import mlcroissant as mlc

    return mlc.Source(
        file_set=f"{config}-files",
        extract=mlc.Extract(column=column),
        transforms=[mlc.Transform(json_path=json_path)] if json_path else [],
    )


def issues(path: Path) -> Issues:
    """What mlcroissant says of a croissant.json: errors, and recommendations as warnings."""
    import mlcroissant as mlc

    try:
        with quiet():
            found = mlc.Dataset(jsonld=path).metadata.ctx.issues
    except Exception as error:  # what it raises on a damaged document is not documented
        return Issues([f"{type(error).__name__}: {error}"], [])
    return Issues(sorted(map(str, found.errors)), sorted(map(str, found.warnings)))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps mlcroissant from logging each recommendation: `issues` returns them."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def to_json(made: Mapping[str, Any]) -> bytes:
    """A document as the bytes of croissant.json."""
    return json.dumps(made, indent=1, ensure_ascii=False, default=str).encode()
