"""Taking a package out of the bucket into a folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_assets.counterfactuals.packaging.manifest import (
    MANIFEST,
    Package,
    PackageError,
    find_package,
    read_package,
)

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.catalog import Catalog, Release


# A package that is made again is signed anew, and so another one.
ANOTHER = (
    "restore the bucket from a backup, or export another package of the dataset by --dataset: "
    "materialise counterfactuals/package to have one"
)


def choose_package(
    bucket: Bucket, catalog: Catalog, release_id: str | None, dataset_hash: str | None
) -> Package:
    """The package of a dataset, else of a release, else of the current release.

    Raises:
        PackageError: There is no such dataset, release or package.
    """
    if dataset_hash:
        found = find_package(bucket, dataset_hash)
        if found is None:
            raise PackageError(
                f"there is no package of dataset {dataset_hash!r}; restore it from a backup, or "
                "materialise counterfactuals/package"
            )
    else:
        release = catalog.get_release(release_id) if release_id else catalog.current_release()
        if release is None:
            wanted = f"release {release_id!r}" if release_id else "current release"
            raise PackageError(f"there is no {wanted}; see `cf-lab release list`")
        found = _released_package(bucket, release)
    return found


def _released_package(bucket: Bucket, release: Release) -> Package:
    """The very package that a release names; no other one will do."""
    name, named = f"release {release.release_id}", release.manifest.get("package")
    if not named:
        raise PackageError(f"{name} has no package; name its dataset by --dataset")
    key = f"{named['prefix']}/{MANIFEST}"
    found = read_package(bucket, named["prefix"])
    if found is None:
        raise PackageError(f"{key} of {name} is missing or damaged; {ANOTHER}")
    if found.sha256 != named["sha256"]:
        raise PackageError(f"{key} is not the one that {name} names; {ANOTHER}")
    return found


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        PackageError: It is there and is no empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PackageError(f"{folder} is there and is not empty; name a folder that is not there")


def export_package(
    bucket: Bucket,
    package: Package,
    folder: Path,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a package's files to a folder; each is compared with the manifest.

    Args:
        bucket: holds the package.
        package: from `find_package` or `read_package`.
        folder: is made; an empty one, or a link to one, may be there and is filled.
        advance: gets the bytes of each file once it is written.

    Raises:
        PackageError: The folder is not empty, or a file is not the one that the manifest names.
    """
    from cf_lab_resources.bucket import BucketKeyError

    folder = folder.resolve()  # `.` has no name, and a link has no room
    check_free(folder)
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        for file in package.manifest["files"]:
            path = staged / file["path"]
            try:
                bucket.get_file(f"{package.prefix}/{file['path']}", path)
            except BucketKeyError as error:
                raise PackageError(
                    f"{package.prefix}/{file['path']} is missing; {ANOTHER}"
                ) from error
            with path.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            if digest != file["sha256"]:
                raise PackageError(
                    f"{package.prefix}/{file['path']} is damaged; restore the bucket from a "
                    "backup, or delete it, materialise counterfactuals/package and export by "
                    "--dataset"
                )
            advance(file["bytes"])
        (staged / MANIFEST).write_text(json.dumps(package.manifest, indent=1))
        if not folder.exists():
            staged.rename(folder)
            return
        # The folder itself stays, as somebody may stand in it; without its manifest it is no
        # package yet.
        for path in sorted(staged.iterdir(), key=lambda path: path.name == MANIFEST):
            shutil.move(path, folder)
        staged.rmdir()
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
