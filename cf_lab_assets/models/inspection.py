"""Whether the models in use are still the ones on record, file by file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.models import artifacts, registry
from cf_lab_assets.models.registry import ModelDamaged
from cf_lab_resources import __version__
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.model_uris import ModelUri

# Columns of a table that nothing bounds.
UNBOUNDED = 10_000
SHOWN_DIGITS = 16


@dataclass(frozen=True)
class Verification:
    """What became of re-hashing a model's files.

    Attributes:
        name: the lab's name for the model.
        about: uri, revision, licence, bytes and sha256; empty where it was never fetched.
        places: where its files were read.
        damaged: each file that is not the one on record, and where it lies.
    """

    name: str
    about: dict[str, Any]
    places: tuple[str, ...]
    damaged: tuple[str, ...]

    @property
    def state(self) -> str:
        """In two words."""
        if not self.about:
            return "not fetched"
        return f"{len(self.damaged)} damaged" if self.damaged else "intact"


def verify(bucket: Bucket) -> list[Verification]:
    """Re-hash every file of every model in use: the package's, this machine's, the bucket's.

    Raises:
        BucketError: the bucket failed.
    """
    cache = Settings.from_env().models_folder
    return [_verified(bucket, name, uri, cache) for name, uri in artifacts.models_in_use().items()]


def _verified(bucket: Bucket, name: str, uri: ModelUri, cache: Path) -> Verification:
    places, damaged = [], []
    about: dict[str, Any] = {}
    if name in artifacts.FOLDERS:
        places.append("package")
        try:
            about = _of_package(uri, artifacts.verify(name))
        except ModelDamaged as error:
            damaged.append(str(error))
    try:
        manifest = registry.recorded(bucket, uri)
        if manifest:
            about = about or registry.file_metadata(manifest)
            places.append("bucket")
            if (cache / manifest.sha256).is_dir():
                places.append("local copy")
            damaged += registry.damages(bucket, manifest, cache)
        elif name not in artifacts.FOLDERS:
            damaged.append(str(artifacts.not_fetched(uri)))
    except ModelDamaged as error:
        damaged.append(str(error))
    return Verification(name, about, tuple(places), tuple(damaged))


def _of_package(uri: ModelUri, found: artifacts.Artifact) -> dict[str, Any]:
    return {
        "uri": str(uri),
        "revision": __version__,
        "licence": registry.STARTER_LICENCE,
        "bytes": found.bytes,
        "sha256": found.sha256,
    }


def table(verified: Sequence[Verification]) -> Table:
    """A line for each model, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for heading in ("model", "revision", "licence"):
        shown.add_column(heading)
    shown.add_column("bytes", justify="right")
    for heading in ("sha256", "verified in", "state"):
        shown.add_column(heading, overflow="fold")
    for one in verified:
        shown.add_row(
            one.name,
            one.about.get("revision"),
            one.about.get("licence"),
            f"{one.about['bytes']:,}" if one.about else None,
            one.about.get("sha256", "")[:SHOWN_DIGITS],
            ", ".join(one.places),
            one.state,
        )
    return shown
