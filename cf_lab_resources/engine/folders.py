"""Model folders: what may be loaded, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cf_lab_resources.errors import LabError

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
CODE = {".py", ".pyc", ".so"}
# The safetensors library refuses a longer one.
MAX_HEADER_BYTES = 100_000_000


class ModelRefused(LabError):
    """A model folder that is missing, incomplete or damaged, or that holds or asks for code."""


def check_folder(folder: Path) -> None:
    """Refuse a folder that can't be loaded safely.

    Cheap: of the weights only the headers are read.

    Raises:
        ModelRefused: the folder is missing, holds a pickle or code, asks for code of its own, has
            no safetensors file, or one that is damaged.
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
    code = sorted(path.name for path in files if path.suffix in CODE)
    if code:
        raise ModelRefused(
            f"model folder {folder} holds {code[0]}, and a model's own code is never run; remove "
            "that file if the model's library knows the model without it, else choose another"
        )
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelRefused(
            f"model folder {folder} has no .safetensors file; save its weights as such"
        )
    for path in sorted(files):
        if path.suffix == ".json":
            _check_config(path)
        elif path.suffix == ".safetensors":
            check_safetensors(path)


def _check_config(path: Path) -> None:
    """Refuse a configuration that asks a library to run code that comes with the model."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(
            f"{path} can't be read as JSON ({error}); fetch or save the model again"
        ) from error
    if not isinstance(config, dict):
        return
    asked = [name for name in ("auto_map", "trust_remote_code") if config.get(name)]
    if not isinstance(config.get("_class_name", ""), str):
        asked.append("_class_name")  # ["pipeline", "MyPipeline"] names a module of the folder
    if asked:
        raise ModelRefused(
            f"{path} asks for code of its own ({asked[0]}: {config[asked[0]]}), which is never "
            "run; choose a model that its library knows without"
        )


def check_safetensors(path: Path) -> None:
    """Refuse a weight file whose header and size do not belong together, without reading it all.

    The format: eight bytes with the header's length, the header as JSON with each tensor's place,
    and the tensors, which fill the rest without gaps.

    Raises:
        ModelRefused: it is truncated, longer than it says, or no safetensors file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"its header would have {length:,} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        tensors = [place for name, place in header.items() if name != "__metadata__"]
        announced = 8 + length + max((int(one["data_offsets"][1]) for one in tensors), default=0)
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError) as error:
        raise ModelRefused(
            f"{path} is truncated or no safetensors file ({error}); fetch or save it again"
        ) from error
    if announced != size:
        what = "truncated" if size < announced else "longer than it may be"
        raise ModelRefused(
            f"{path} is {what}: it has {size:,} bytes and its header says {announced:,}; fetch or "
            "save it again"
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
    return listing_hash(folder_files(folder))


def listing_hash(files: Mapping[str, str]) -> str:
    """One SHA-256 for files, given each one's by its path."""
    ordered = sorted(files, key=lambda name: PurePosixPath(name).parts)
    listing = "\n".join(f"{files[name]}  {name}" for name in ordered)
    return hashlib.sha256(listing.encode()).hexdigest()
