"""Model folders: what may be loaded, and the hash that names it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cf_lab_resources.errors import LabError

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


class ModelRefused(LabError):
    """A model folder that is missing, incomplete or holds a pickle."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that can't be loaded safely.

    Raises:
        ModelRefused: the folder is missing, holds a pickle or has no safetensors file.
    """
    if not folder.is_dir():
        raise ModelRefused(
            f"model folder {folder} does not exist; give the folder of a saved model"
        )
    files = [path for path in folder.rglob("*") if path.is_file()]
    pickles = sorted(path.name for path in files if path.suffix in PICKLES)
    if pickles:
        raise ModelRefused(
            f"model folder {folder} holds {pickles[0]}, which may run code when it is read; "
            "save the model again with safe_serialization=True and remove that file"
        )
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelRefused(
            f"model folder {folder} has no .safetensors file; save its weights as such"
        )


def quieten_libraries() -> None:
    """Keep the libraries' loading bars and hints off the terminal; errors still show.

    Runs show their own progress, and the hints speak of packages the lab does without.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
        library.set_verbosity_error()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path relative to the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}


def folder_hash(folder: Path) -> str:
    """One SHA-256 for a model folder, of its files' names and hashes."""
    listing = "\n".join(f"{digest}  {name}" for name, digest in folder_files(folder).items())
    return hashlib.sha256(listing.encode()).hexdigest()
