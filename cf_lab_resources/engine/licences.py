"""Licences of model folders: what their cards say, and which must be accepted by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cf_lab_resources.errors import LabError

# Weights of these pipelines came under such a licence only, so that a missing card means it.
USUAL = {"FluxKontextPipeline": "flux-1-dev-non-commercial-license"}
_MARKS = ("non-commercial", "noncommercial", "-nc", "research-only")


class LicenceRefused(LabError):
    """A licence that forbids commercial use, and that nobody has accepted by name."""


def card_header(folder: Path) -> dict[str, Any]:
    """The YAML header of a folder's model card, empty where there is none that can be read."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        header = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return {}
    return header if isinstance(header, dict) else {}


def licence_of(folder: Path, pipeline: str = "") -> str | None:
    """The name of a model folder's licence, None where nothing says it.

    Args:
        folder: with a model card, `README.md`, whose header names the licence.
        pipeline: class of the pipeline, which tells the licence where no card does.
    """
    header = card_header(folder)
    named = header.get("license_name") or header.get("license")
    return str(named) if named else USUAL.get(pipeline)


def check_licence(folder: Path, pipeline: str, accepted: str) -> None:
    """Refuse weights for non-commercial use unless their licence was accepted by its name.

    Raises:
        LicenceRefused: it was not.
    """
    named = licence_of(folder, pipeline)
    if named and named != accepted and any(mark in named.lower() for mark in _MARKS):
        raise LicenceRefused(
            f"the weights in {folder} are under {named}, which forbids commercial use; if you may "
            f"use them, set accepted_licence to {named!r}"
        )
