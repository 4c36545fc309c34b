"""Families of architectures: who is too near to an audited model to have chosen its pictures."""

from __future__ import annotations

from typing import Any

# transformers' names of towers end so: clip_vision_model, siglip_text_model, idefics3_vision.
_PARTS = ("_model", "_vision", "_text")
# Whose vision tower or weights descend from another family's, though their names don't say so.
RELATED = {
    "altclip": "clip",  # keeps CLIP's vision tower (Chen et al. 2022)
    "chinese_clip": "clip",
    "clipseg": "clip",
    "metaclip_2": "clip",
    "siglip2": "siglip",
    "idefics2": "siglip",  # SigLIP-So400m (Laurencon et al. 2024)
    "idefics3": "siglip",
    "smolvlm": "siglip",  # Marafioti et al. 2025
}


def family(name: str) -> str:
    """The family of transformers' `model_type` of a model or of one of its towers."""
    for part in _PARTS:
        name = name.removesuffix(part)
    return RELATED.get(name, name)


def families(config: Any) -> tuple[str, ...]:
    """Families in a model: its own and, one level after another, those of its towers.

    Args:
        config: a transformers configuration.
    """
    found = [family(str(config.model_type))]
    for name in getattr(config, "sub_configs", {}):
        inner = getattr(config, name, None)
        if getattr(inner, "model_type", None):
            found += families(inner)
    return tuple(sorted(set(found)))
