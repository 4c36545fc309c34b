"""Which kind a delivery is of, told from the names of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cf_lab_assets.sources import captionsets, imagefolder, shards, tables
from cf_lab_assets.sources.captions import printable
from cf_lab_assets.sources.deliveries import passed_over
from cf_lab_assets.sources.refusals import DeliveryRefused
from cf_lab_assets.sources.rows import Kind

if TYPE_CHECKING:
    from cf_lab_assets.sources.deliveries import Delivery

# The first two are told by a file of a name of their own, whatever lies beside it.
MARKED = (imagefolder.KIND, tables.SAVED)
UNMARKED = (shards.KIND, tables.PARQUET, captionsets.KIND)
KINDS = (*MARKED, *UNMARKED)

NAMED_FILES = 5  # of those that were found, in messages


@dataclass(frozen=True)
class Found:
    """What a delivery is: its kind, and its files that hold rows."""

    kind: Kind
    files: tuple[str, ...]


def find(delivery: Delivery) -> Found:
    """The kind of a delivery.

    Raises:
        DeliveryRefused: `unknown_kind`, `missing_metadata`, `two_metadata_files` or `two_kinds`.
    """
    names = [name for name, _ in delivery.files()]
    return told(names, delivery.where, delivery.links)


def told(names: Sequence[str], where: str, links: int = 0) -> Found:
    """The kind that the names of a delivery's files tell.

    Args:
        names: Of its files.
        where: It is, for messages.
        links: How many were passed over.

    Raises:
        DeliveryRefused: As `find` does.
    """
    found = _of_names(names, where)
    if found:
        return found
    kinds = "; ".join(f"{kind.name}: {kind.form}" for kind in KINDS)
    first = ", ".join(printable(name, 80) or "" for name in sorted(names)[:NAMED_FILES])
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    if links:
        more += f" and {passed_over(links)}"
    deeper = [name for name in names if name.endswith(imagefolder.METADATA_FILES)]
    hint = f" (there is a {deeper[0]}; deliver that folder)" if deeper else ""
    raise DeliveryRefused(
        "unknown_kind",
        f"{where} has {first or 'no files'}{more}{hint}, which is none of "
        f"the kinds that are taken. {kinds}",
    )


def _of_names(names: Sequence[str], where: str) -> Found | None:
    """The kind; None where the names tell none."""
    for kind in MARKED:
        if files := kind.row_files(names):
            return _found(kind, files, where)
    found = [(kind, files) for kind in UNMARKED if (files := kind.row_files(names))]
    if len(found) > 1:
        kinds = " and ".join(f"{kind.name} ({files[0]})" for kind, files in found)
        raise DeliveryRefused("two_kinds", f"{where} has {kinds}; deliver them apart")
    return _found(*found[0], where) if found else None


def _found(kind: Kind, files: Sequence[str], where: str) -> Found:
    if kind is imagefolder.KIND and len(files) > 1:
        raise DeliveryRefused(
            "two_metadata_files",
            f"{where} has {' and '.join(files)}; keep one, since they may disagree",
        )
    return Found(kind, tuple(files))
