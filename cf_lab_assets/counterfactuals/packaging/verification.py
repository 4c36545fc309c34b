"""Reading a package back: is each picture, row and file what the manifest and the credentials say?

Every row is read, one shard in memory at a time. A picture counts as verified when its signature
and its pixels are intact, its credentials name the row's pair and source, and both forms of the
shard and the sidecar agree on it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging import provenance
from cf_lab_assets.counterfactuals.packaging.manifest import CERTIFICATES
from cf_lab_assets.counterfactuals.packaging.rows import IMAGE, SIGNED_SHA256, SOURCE_IMAGE
from cf_lab_assets.counterfactuals.packaging.shards import GROUP_ROWS, SPLIT, Shard, sample_key
from cf_lab_resources.credentials.pictures import Verdict, Verifier, without_credentials

if TYPE_CHECKING:
    from cryptography import x509

_SHARD = re.compile(rf"data/{SPLIT}-(?P<index>[0-9]+)-of-(?P<count>[0-9]+)\.parquet")

Read = Callable[[str], bytes]


@dataclass
class Verification:
    """What was found.

    Attributes:
        states: how many pictures of each state, by file.
        pictures: faults by picture.
        files: faults of files, and of the package as a whole.
        signers: who signed, as the certificates say.
        trusting: whether somebody has said whom to trust. Where nobody has, a picture that chains
            to the package's own root counts as intact: anyone can make such a root.
    """

    states: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    pictures: dict[str, list[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    signers: set[str] = field(default_factory=set)
    trusting: bool = True

    @property
    def count(self) -> int:
        """Pictures that were looked at."""
        return sum(sum(counter.values()) for counter in self.states.values())

    @property
    def faults(self) -> list[str]:
        """All faults, one line each."""
        found = [f"{name}: {'; '.join(why)}" for name, why in self.pictures.items()]
        return [*self.files, *found]

    def add(self, file: str, name: str, verdict: Verdict, faults: Sequence[str]) -> None:
        """Count one picture."""
        state: str = "broken" if faults and verdict.intact else verdict.state
        if state == "trusted" and not self.trusting:
            state = "intact"
        self.states[file][state] += 1
        if verdict.signer:
            self.signers.add(verdict.signer)
        if faults:
            self.pictures[name] = list(faults)


def verify_package(
    read: Read, manifest: Mapping[str, Any], anchors: Sequence[str] | None = None
) -> Verification:
    """Verify all pictures and files of a package.

    Args:
        read: gives the bytes of a path in the package; `LookupError` or `OSError` where there is
            no such file.
        manifest: the package's.
        anchors: PEM certificates to trust; the package's own root where None, which shows that
            the package is in one piece and not who made it.
    """
    found = Verification(trusting=anchors is not None)
    listed = {file["path"]: file["sha256"] for file in manifest["files"]}
    unread = set(listed)

    def checked(path: str) -> bytes | None:
        unread.discard(path)
        try:
            data = read(path)
        except (LookupError, OSError) as error:
            found.files.append(f"{path} is missing ({type(error).__name__})")
            return None
        if hashlib.sha256(data).hexdigest() != listed.get(path):
            found.files.append(f"{path} is not the file that the manifest names")
        return data

    certificate, own = _certificate(checked(CERTIFICATES), manifest, found)
    verifier = Verifier(own if anchors is None else anchors)
    rows = 0
    for path in sorted(listed):
        if name := _SHARD.fullmatch(path):
            shard = Shard(int(name["index"]), int(name["count"]), 0, 0)
            tar, sidecar = checked(shard.tar) or b"", checked(shard.sidecar) or b""
            others = dict(_tar_hashes(tar)), dict(_sidecar_hashes(sidecar))
            judge = _Judge(path, verifier, certificate, *others, found)
            rows += judge.shard(checked(path))
        elif path.startswith("data/"):
            found.files.append(f"{path} is not called like a shard, so its pictures are not read")
    for path in sorted(unread):
        checked(path)
    if rows != manifest["pairs"]:
        found.files.append(f"{rows} rows, and {manifest['pairs']} pairs in the manifest")
    return found


def _certificate(
    data: bytes | None, manifest: Mapping[str, Any], found: Verification
) -> tuple[x509.Certificate | None, list[str]]:
    """The signing certificate, and the root of its chain."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    from cf_lab_resources.credentials.keys import chain_anchor

    try:
        leaf = x509.load_pem_x509_certificates(data or b"")[0]
    except (ValueError, IndexError):
        found.files.append(f"{CERTIFICATES} holds no certificate")
        return None, []
    if leaf.fingerprint(hashes.SHA256()).hex() != manifest["signer"]:
        found.files.append(f"{CERTIFICATES} is not the manifest's signer")
    return leaf, [chain_anchor((data or b"").decode())]


def _tar_hashes(data: bytes) -> Iterator[tuple[str, str]]:
    """Sample keys and hashes of signed pictures in a WebDataset shard."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".png") else None
                if file is not None:
                    yield member.name.removesuffix(".png"), _sha256(file.read())
    except tarfile.TarError:
        return  # the pictures that are missing are named one by one


def _sidecar_hashes(data: bytes) -> Iterator[tuple[str, str]]:
    """Pairs and hashes of their signed pictures in a sidecar."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
            yield record["pair_id"], record[SIGNED_SHA256]
        except (ValueError, LookupError, TypeError):
            continue


def _picture(cell: Mapping[str, Any] | None) -> bytes:
    """A picture's bytes; none of a null, which no credentials are found in."""
    return (cell or {}).get("bytes") or b""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class _Judge:
    """Judges the rows of one shard."""

    path: str
    verifier: Verifier
    certificate: x509.Certificate | None
    in_tar: Mapping[str, str]
    in_sidecar: Mapping[str, str]
    found: Verification

    def shard(self, data: bytes | None) -> int:
        """Judge each row, and return how many there are."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        count = 0
        try:
            # One column chunk at a time: the whole file is in memory already.
            with pq.ParquetFile(pa.BufferReader(data or b""), pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=GROUP_ROWS):
                    for row in batch.to_pylist():
                        self._row(row)
                        count += 1
        except (ValueError, OSError, LookupError, TypeError, AttributeError) as error:
            # Whoever wrote the file chose its columns and their types.
            self.found.files.append(f"{self.path} can't be read: {error}")
        return count

    def _row(self, row: Mapping[str, Any]) -> None:
        png = _picture(row[IMAGE])
        verdict = self.verifier.verify_once(png)
        faults = list(verdict.problems) if not verdict.intact else []
        if verdict.intact:
            faults += provenance.contradictions(verdict, row)
            if self.certificate and verdict.serial != str(self.certificate.serial_number):
                faults.append("signed with another certificate than the package's")
        faults += self._hash_faults(row, png)
        self.found.add(self.path, row["pair_id"], verdict, faults)

    def _hash_faults(self, row: Mapping[str, Any], png: bytes) -> Iterator[str]:
        signed = _sha256(png)
        if signed != row[SIGNED_SHA256]:
            yield f"{SIGNED_SHA256} is of another picture"
        if _unsigned_sha256(png) != row["image_sha256"]:
            yield "without its credentials it is not the picture of image_sha256"
        edited = provenance.action_of(row) == provenance.EDITED
        if edited and _sha256(_picture(row[SOURCE_IMAGE])) != row["source_image_sha256"]:
            yield "the source picture is not the one of source_image_sha256"
        if not edited and row[SOURCE_IMAGE] is not None:
            yield "a picture drawn from its caption has no source picture"
        if self.in_tar.get(sample_key(row["pair_id"])) != signed:
            yield "the WebDataset shard has another picture, or none"
        if self.in_sidecar.get(row["pair_id"]) != signed:
            yield "the sidecar has another picture, or none"


def _unsigned_sha256(png: bytes) -> str | None:
    try:
        return _sha256(without_credentials(png))
    except ValueError:
        return None
