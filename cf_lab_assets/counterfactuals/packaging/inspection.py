"""Verifying a folder of somebody's disk: an exported package, or just pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cf_lab_assets.counterfactuals.packaging.manifest import MANIFEST, parse_manifest
from cf_lab_assets.counterfactuals.packaging.verification import Verification, verify_package
from cf_lab_resources.credentials.pictures import Verifier
from cf_lab_resources.errors import LabError

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


class NothingToVerify(LabError):
    """A folder holds neither a package nor pictures."""


def verify_folder(folder: Path, anchors: Sequence[str] | None = None) -> Verification:
    """Verify an exported package, or all pictures of another folder.

    Raises:
        NothingToVerify: There is no such folder, or neither manifest nor picture in it.
    """
    if not folder.is_dir():
        raise NothingToVerify(f"{folder} is not a folder; name an exported package")
    if (folder / MANIFEST).exists():
        try:
            manifest = parse_manifest((folder / MANIFEST).read_bytes())
        except ValueError as error:
            raise NothingToVerify(f"{folder / MANIFEST}: {error}; export it again") from error
        found = verify_package(lambda path: (folder / path).read_bytes(), manifest, anchors)
        listed = {MANIFEST, *(file["path"] for file in manifest["files"])}
        found.files += [
            f"{path} is not in the manifest; remove it, or export the package again"
            for path in sorted(_visible_files(folder) - listed)
        ]
        return found
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES and path.is_file()
    )
    if not paths:
        raise NothingToVerify(
            f"{folder} holds neither a package nor a picture; write one with `cf-lab export`"
        )
    found, verifier = Verification(), Verifier(anchors or [])
    for path in paths:
        verdict = verifier.verify(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()])
        faults = [] if verdict.intact else verdict.problems
        name = path.relative_to(folder).as_posix()
        found.add(str(Path(name).parent), name, verdict, faults)
    return found


def _visible_files(folder: Path) -> set[str]:
    """Paths of files and links, but for hidden ones, such as git's: no pattern loads those."""
    paths = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    return {p.as_posix() for p in paths if not any(part.startswith(".") for part in p.parts)}


def table(found: Verification) -> str:
    """Pictures by file and state, and who signed them, for people."""
    states = ("trusted" if found.trusting else "intact", "untrusted", "broken", "missing")
    width = max([len(file) for file in found.states] + [len("total")])
    lines = ["  ".join([f"{'':<{width}}", "pictures", *(f"{state:>9}" for state in states)])]
    total: Counter[str] = Counter()
    for file, counter in [*sorted(found.states.items()), ("total", total)]:
        counts = "  ".join(f"{counter[state]:>9}" for state in states)
        lines.append(f"{file:<{width}}  {sum(counter.values()):>8}  {counts}")
        if counter is not total:
            total.update(counter)
    lines += [f"signed by {signer}" for signer in sorted(found.signers)]
    return "\n".join(lines)
