"""Signing a report, and verifying one.

What is signed is a short statement: identity, version and date of the report, the hash of its body,
the hash of what stands beside the body, and the hashes of the files that were written with it. So
the body stays the same for the same metrics, whoever signs it and when.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_assets.audits.declaration import canonical_json
from cf_lab_assets.audits.errors import AuditError

if TYPE_CHECKING:
    from cf_lab_resources.credentials.keys import SigningKey

REPORT_JSON = "report.json"


@dataclass(frozen=True)
class Verification:
    """What a report's signature is worth.

    Attributes:
        faults: what does not belong together; empty where the report is intact.
        signer: subject of the certificate.
        certificate: SHA-256 of the certificate.
        is_test: whether it is the lab's test key, which anybody's lab makes for itself.
        trusted: whether the chain leads to a certificate that was named as trusted.
        verified: files beside the report that are as they were signed.
        missing: files that were signed and are not beside the report.
    """

    faults: tuple[str, ...]
    signer: str = ""
    certificate: str = ""
    is_test: bool = False
    trusted: bool = False
    verified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def sha256(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def signer_of(key: SigningKey) -> dict[str, Any]:
    """What a report says of the key that signs it."""
    return {
        "subject": key.subject,
        "algorithm": key.algorithm,
        "certificate_sha256": key.fingerprint,
        "test_key": key.is_test,
    }


def signed(
    report: Mapping[str, Any],
    key: SigningKey,
    files: Mapping[str, bytes],
    day: str,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report with the key's signature beside its body, in the place of any other.

    Args:
        report: of `report.build`.
        key: the lab's signing key.
        files: what is written with the report, by name; the report's own JSON is not among them.
        day: of signing, ISO.
        before: the report as it was written before; where the same key signed the same, its
            signature stays, since a new one would have other bytes.
    """
    from cf_lab_resources.credentials import documents

    stated = _statement(report) | {"files": {name: sha256(data) for name, data in files.items()}}
    for one in (before or {}).get("signatures", []):
        same = {name: value for name, value in one["statement"].items() if name != "signed_on"}
        if same == stated and one["certificate_sha256"] == key.fingerprint:
            return {**report, "signatures": [one]}
    statement = stated | {"signed_on": day}
    return {
        **report,
        "signatures": [
            {
                **signer_of(key),
                "certificates": key.certificates,
                "statement": statement,
                "value": base64.b64encode(documents.sign(canonical_json(statement), key)).decode(),
            }
        ],
    }


def _statement(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "report_id": report["report_id"],
        "version": report["version"],
        "date": report["date"],
        "body_sha256": sha256(canonical_json(report["body"])),
        "context_sha256": sha256(canonical_json(report["context"])),
    }


def verify(path: Path, anchors: str | None = None) -> Verification:
    """Verify a report's JSON and the files beside it.

    Args:
        path: `report.json`, or a file that lies beside it.
        anchors: PEM certificates to trust.

    Raises:
        AuditError: the file can't be read, or is no report.
    """
    report_path = path if path.suffix == ".json" else path.with_name(REPORT_JSON)
    report = read_report(report_path)
    beside = {}
    for name in _files_of(report):
        found = report_path.with_name(name)
        if found.is_file():
            beside[name] = found.read_bytes()
    if path != report_path and path.name not in _files_of(report):
        raise AuditError(f"{path}: {report_path} was not signed together with a file of this name")
    try:
        return verify_report(report, beside, anchors)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise AuditError(f"{report_path}: its signature has not the form of one") from error


def read_report(path: Path) -> dict[str, Any]:
    """A report's JSON from a file.

    Raises:
        AuditError: it can't be read, or is no report.
    """
    try:
        report = json.loads(path.read_bytes())
    except OSError as error:
        raise AuditError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise AuditError(f"{path} is no JSON: {error}") from error
    parts = {"schema", "report_id", "version", "date", "body_sha256", "body", "context"}
    if not isinstance(report, dict) or not parts <= set(report):
        raise AuditError(f"{path} is not a bias report of this lab")
    return report


def _files_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the signed files by name; names with a folder in them are never followed."""
    files: dict[str, str] = {}
    for one in report.get("signatures") or []:
        files |= one["statement"]["files"]
    return {name: digest for name, digest in files.items() if Path(name).name == name}


def verify_report(
    report: Mapping[str, Any], files: Mapping[str, bytes], anchors: str | None = None
) -> Verification:
    """Whether body, context, signature and files belong together.

    Args:
        report: JSON of a report.
        files: those that are there of the files that were signed with it.
        anchors: PEM certificates to trust; without any, a good signature is intact and untrusted.
    """
    faults = []
    if sha256(canonical_json(report["body"])) != report["body_sha256"]:
        faults.append("the body is not the one that its hash was taken of")
    if not report.get("signatures"):
        return Verification((*faults, "the report is not signed"))
    (one,) = report["signatures"][:1]
    signed_files = _files_of(report)
    same = {name: sha256(data) == signed_files[name] for name, data in files.items()}
    faults += [f"{name} is not the one that was signed" for name, good in same.items() if not good]
    faults += [
        f"{name} is not the one that was signed"
        for name, value in _statement(report).items()
        if one["statement"].get(name) != value
    ]
    faults += _signature_faults(one)
    return Verification(
        tuple(faults),
        str(one["subject"]),
        str(one["certificate_sha256"]),
        bool(one["test_key"]),
        not faults and anchors is not None and _anchored(one, anchors),
        tuple(sorted(name for name, good in same.items() if good)),
        tuple(sorted(set(signed_files) - set(files))),
    )


def _signature_faults(one: Mapping[str, Any]) -> list[str]:
    from cf_lab_resources.credentials import documents

    try:
        value = base64.b64decode(one["value"], validate=True)
        day = datetime.date.fromisoformat(one["statement"]["signed_on"])
    except ValueError:
        return ["the signature or the date is not readable"]
    fault = documents.fault(
        canonical_json(one["statement"]), value, one["certificates"], one["algorithm"], day
    )
    if fault:
        return [fault]
    told = (one["subject"], one["certificate_sha256"], one["test_key"])
    return [] if told == documents.identity(one["certificates"]) else ["the signer is another"]


def _anchored(one: Mapping[str, Any], anchors: str) -> bool:
    from cf_lab_resources.credentials import documents

    return documents.is_anchored(one["certificates"], anchors)
