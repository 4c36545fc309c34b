"""What a signature holds together, and what it does not vouch for."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from typer.testing import CliRunner

from cf_lab_assets import cli
from cf_lab_assets.audits import signature
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.report import to_json
from cf_lab_resources.credentials import documents
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_resources.credentials.keys import SigningKey

# A new key's certificate is valid from today on.
TODAY = datetime.datetime.now(datetime.UTC).date()
DAY, NEXT_DAY = TODAY.isoformat(), (TODAY + datetime.timedelta(days=1)).isoformat()
FILES = {"report.html": b"<p>page</p>", "results.csv": b"id\n1\n"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return home_test_key(tmp_path_factory.mktemp("key") / "signing")


def unsigned() -> dict[str, Any]:
    body = {"data": {"dataset_hash": "d" * 64}, "results": {"m": []}}
    return {
        "schema": "s",
        "report_id": "b0",
        "version": 1,
        "date": DAY,
        "body": body,
        "body_sha256": signature.sha256(signature.canonical_json(body)),
        "context": {"run_id": None},
        "signatures": [],
    }


@pytest.fixture
def folder(tmp_path: Path, key: SigningKey) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "report.json").write_bytes(to_json(signature.signed(unsigned(), key, FILES, DAY)))
    return tmp_path


def test_a_signed_report_is_intact_and_names_its_test_key(folder: Path, key: SigningKey) -> None:
    found = signature.verify(folder / "report.json")
    assert found.faults == ()
    assert (found.is_test, found.trusted) == (True, False)
    assert found.certificate == key.fingerprint
    assert found.verified == ("report.html", "results.csv")
    assert signature.verify(folder / "report.html") == found


def test_who_trusts_the_root_trusts_the_report(
    folder: Path, key: SigningKey, tmp_path: Path
) -> None:
    assert signature.verify(folder / "report.json", key.anchor).trusted
    other = home_test_key(tmp_path / "other")
    assert not signature.verify(folder / "report.json", other.anchor).trusted


def _changed_body(made: dict[str, Any]) -> None:
    made["body"]["results"]["m"].append(1)


def _changed_body_and_hash(made: dict[str, Any]) -> None:
    _changed_body(made)
    made["body_sha256"] = signature.sha256(signature.canonical_json(made["body"]))


def _changed_date(made: dict[str, Any]) -> None:
    made["date"] = "2020-01-01"


def _changed_context(made: dict[str, Any]) -> None:
    made["context"]["run_id"] = "another"


def _changed_statement(made: dict[str, Any]) -> None:
    made["signatures"][0]["statement"]["signed_on"] = NEXT_DAY


def _no_longer_a_test_key(made: dict[str, Any]) -> None:
    made["signatures"][0]["test_key"] = False


def _garbled(made: dict[str, Any]) -> None:
    made["signatures"][0]["value"] = "AAAA"


def _taken_off(made: dict[str, Any]) -> None:
    made["signatures"] = []


@pytest.mark.parametrize(
    "change",
    [
        _changed_body,
        _changed_body_and_hash,
        _changed_date,
        _changed_context,
        _changed_statement,
        _no_longer_a_test_key,
        _garbled,
        _taken_off,
    ],
)
def test_whatever_is_changed_breaks_it(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    made = json.loads((folder / "report.json").read_bytes())
    change(made)
    (folder / "report.json").write_text(json.dumps(made))
    assert signature.verify(folder / "report.json").faults


def test_a_file_beside_it_that_was_changed_is_named(folder: Path) -> None:
    (folder / "results.csv").write_bytes(b"id\n2\n")
    assert signature.verify(folder / "report.html").faults == (
        "results.csv is not the one that was signed",
    )
    (folder / "results.csv").unlink()
    found = signature.verify(folder / "report.json")
    assert (found.faults, found.missing) == ((), ("results.csv",))


def test_a_signature_can_not_be_moved_to_a_certificate_of_someone_else(
    folder: Path, tmp_path: Path
) -> None:
    made = json.loads((folder / "report.json").read_bytes())
    made["signatures"][0]["certificates"] = home_test_key(tmp_path / "other").certificates
    assert signature.verify_report(made, {}).faults


def test_the_same_key_does_not_sign_the_same_twice(key: SigningKey, tmp_path: Path) -> None:
    first = signature.signed(unsigned(), key, FILES, DAY)
    again = signature.signed(unsigned(), key, FILES, "2027-01-01", first)
    assert again == first
    changed = signature.signed(unsigned(), key, {}, NEXT_DAY, first)
    assert changed["signatures"][0]["statement"]["signed_on"] == NEXT_DAY
    other = signature.signed(unsigned(), home_test_key(tmp_path / "other"), FILES, DAY, first)
    assert other["signatures"] != first["signatures"]


def test_a_certificate_that_was_not_valid_then_is_a_fault(key: SigningKey) -> None:
    made = signature.signed(unsigned(), key, {}, "2020-01-01")
    (fault,) = signature.verify_report(made, {}).faults
    assert "not valid on the day" in fault


def test_a_name_with_a_folder_in_it_is_not_followed(folder: Path, key: SigningKey) -> None:
    made = signature.signed(unsigned(), key, {"../secret": b"x"}, DAY)
    (folder / "report.json").write_bytes(to_json(made))
    (folder.parent / "secret").write_bytes(b"y")
    assert signature.verify(folder / "report.json").faults == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "no JSON"),
        (b"[]", "not a bias report"),
        (b'{"schema": 1}', "not a bias report"),
        (None, "can't be read"),
    ],
)
def test_what_is_no_report_is_refused_in_words(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AuditError, match=says):
        signature.verify(path)


def test_a_malformed_signature_is_refused_in_words(folder: Path) -> None:
    made = json.loads((folder / "report.json").read_bytes())
    made["signatures"] = [{"statement": {"files": {}}}]
    (folder / "report.json").write_text(json.dumps(made))
    with pytest.raises(AuditError, match="has not the form"):
        signature.verify(folder / "report.json")


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("es256", ec.generate_private_key(ec.SECP256R1())),
        ("es384", ec.generate_private_key(ec.SECP384R1())),
        ("es512", ec.generate_private_key(ec.SECP521R1())),
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
        ("ps256", rsa.generate_private_key(65537, 2048)),
    ],
)
def test_every_kind_of_key_that_signs_pictures_signs_reports(
    key: SigningKey, algorithm: str, private: Any
) -> None:
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    signed = documents.sign(b"data", replace(key, private_key=pem, algorithm=algorithm))
    private.public_key().verify(signed, b"data", *documents._scheme(algorithm))


def test_the_command_says_intact_or_broken(folder: Path) -> None:
    good = CliRunner().invoke(cli.app, ["verify-report", str(folder / "report.json")])
    assert good.exit_code == 0
    assert "intact, untrusted" in good.output
    assert "a TEST key" in good.output
    (folder / "report.html").write_bytes(b"<p>another</p>")
    bad = CliRunner().invoke(cli.app, ["verify-report", str(folder / "report.html")])
    assert bad.exit_code == 1
    assert "report.html is not the one that was signed" in bad.output


def test_signing_leaves_the_body_alone(key: SigningKey) -> None:
    before = unsigned()
    made = signature.signed(copy.deepcopy(before), key, FILES, DAY)
    assert to_json(made["body"]) == to_json(before["body"])
    assert made["body_sha256"] == before["body_sha256"]
