"""Keys that are right, wrong, absent or made by the lab, and pictures signed with them."""

from __future__ import annotations

import io
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from cf_lab_resources.credentials import home_key, keys, pictures
from cf_lab_resources.credentials.home_key import home_test_key, signing_key
from cf_lab_resources.credentials.keys import SigningKey, SigningKeyError, load_signing_key
from cf_lab_resources.credentials.pictures import (
    PictureSigner,
    SigningError,
    Verdict,
    Verifier,
    without_credentials,
)
from cf_lab_resources.settings import Settings


def png(colour: tuple[int, int, int] = (1, 2, 3), size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_key(folder: Path, key: Any, passphrase: bytes | None = None) -> Path:
    path = folder / "key.pem"
    encryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return path


def write_chain(
    folder: Path,
    key: Any,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    days: int = 30,
    with_root: bool = True,
) -> Path:
    """A certificate chain as an authority would issue it to a publisher."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "An authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A publisher")])
    now = datetime.now(UTC)
    known = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())

    def builder(name: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
        )

    def usages(signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(signs, False, False, False, False, not signs, False, False, False)

    leaf = (
        builder(subject, key.public_key())
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(usages(True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    root = (
        builder(issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(usages(False), critical=True)
        .add_extension(known, critical=False)
        .sign(authority, hashes.SHA256())
    )
    path = folder / "chain.pem"
    chain = [leaf, root] if with_root else [leaf]
    path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return home_test_key(tmp_path_factory.mktemp("home") / "signing")


def sign(key: SigningKey, picture: bytes | None = None) -> bytes:
    return PictureSigner(key).sign(picture or png(), png((9, 9, 9)), "source.png", {"title": "t"})


def test_a_home_gets_one_test_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    first = signing_key(settings)
    assert first.is_test
    assert "TEST" in first.subject
    assert "not for production" in first.subject
    folder = settings.signing_folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / home_key.KEY_FILE).stat().st_mode) == 0o600
    assert signing_key(settings) == first
    assert home_test_key(tmp_path / "other").fingerprint != first.fingerprint


def test_two_who_make_a_test_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: home_test_key(tmp_path / "signing"), range(8)))
    assert len({one.fingerprint for one in made}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["signing"]


def test_no_key_is_ever_shown(key: SigningKey) -> None:
    body = key.private_key.splitlines()[1]
    assert "PRIVATE" not in repr(key)
    assert body not in repr(key)


@pytest.mark.parametrize(
    ("made", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), "es256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "es384"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "es512"),
        (ed25519.Ed25519PrivateKey.generate, "ed25519"),
        (lambda: rsa.generate_private_key(65537, 2048), "ps256"),
    ],
)
def test_a_configured_key_signs_whatever_its_kind(
    tmp_path: Path, made: Any, algorithm: str
) -> None:
    private = made()
    settings = Settings(
        home=tmp_path,
        c2pa_key=write_key(tmp_path, private),
        c2pa_certificate=write_chain(tmp_path, private),
    )
    key = signing_key(settings)
    assert (key.algorithm, key.is_test) == (algorithm, False)
    assert not settings.signing_folder.exists()
    verdict = Verifier([key.anchor]).verify(sign(key))
    assert (verdict.state, verdict.signer) == ("trusted", "A publisher")


def test_a_chain_without_its_root_signs_and_is_untrusted(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = load_signing_key(
        write_key(tmp_path, private), write_chain(tmp_path, private, with_root=False)
    )
    assert Verifier([key.anchor]).verify(sign(key)).intact


def faulty(tmp_path: Path, fault: str) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    key, chain = write_key(tmp_path, private), write_chain(tmp_path, private)
    if fault == "no key":
        key.unlink()
    elif fault == "no certificate":
        chain.unlink()
    elif fault == "nonsense key":
        key.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    elif fault == "nonsense certificate":
        chain.write_text("nothing")
    elif fault == "encrypted":
        write_key(tmp_path, private, b"s3cret")
    elif fault == "of another key":
        write_key(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    elif fault == "expired":
        write_chain(tmp_path, private, days=-1)
    elif fault == "weak":
        weak = rsa.generate_private_key(65537, 1024)
        write_key(tmp_path, weak)
        write_chain(tmp_path, weak)
    elif fault == "unknown kind":
        odd = dsa.generate_private_key(2048)
        write_key(tmp_path, odd)
        write_chain(tmp_path, odd)
    return key, chain


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no key", r"key\.pem can't be read: No such file"),
        ("no certificate", r"chain\.pem can't be read: No such file"),
        ("nonsense key", r"key\.pem holds no private key in PEM form"),
        ("nonsense certificate", r"chain\.pem holds no certificate in PEM form"),
        ("encrypted", r"key\.pem is encrypted; decrypt it"),
        ("of another key", r"O=A publisher.* is of another key than .*key\.pem"),
        ("expired", r"is valid from .* which is not now"),
        ("weak", "RSA of at least 2048 bits"),
        ("unknown kind", "a key that C2PA does not sign with"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_without_showing_it(
    tmp_path: Path, fault: str, says: str
) -> None:
    key, chain = faulty(tmp_path, fault)
    with pytest.raises(SigningKeyError, match=says) as caught:
        load_signing_key(key, chain)
    assert "c2VjcmV0" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("missing", ["c2pa_key", "c2pa_certificate"])
def test_key_and_certificate_are_set_together_or_not_at_all(tmp_path: Path, missing: str) -> None:
    settings = Settings(home=tmp_path, c2pa_key=tmp_path / "k", c2pa_certificate=tmp_path / "c")
    variable = f"CF_LAB_{missing.upper()}"
    with pytest.raises(SigningKeyError, match=rf"^{variable} is not set"):
        signing_key(replace(settings, **{missing: None}))


def test_a_certificate_for_another_purpose_is_refused_before_anything_is_signed(
    tmp_path: Path,
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = load_signing_key(
        write_key(tmp_path, private),
        write_chain(tmp_path, private, usage=ExtendedKeyUsageOID.SERVER_AUTH),
    )
    with pytest.raises(SigningError, match=r"the certificate is invalid.*emailProtection"):
        PictureSigner(key)


def test_a_key_that_does_not_fit_its_certificate_signs_nothing(key: SigningKey) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(SigningError, match=r"claimSignature\.mismatch") as caught:
        PictureSigner(replace(key, private_key=other.decode()))
    assert other.decode().splitlines()[1] not in str(caught.value)


def test_a_signed_picture_is_the_same_picture(key: SigningKey) -> None:
    plain = png((40, 50, 60), size=32)
    signed = sign(key, plain)
    assert signed != plain
    assert without_credentials(signed) == plain == without_credentials(plain)
    before, after = (Image.open(io.BytesIO(data)) for data in (plain, signed))
    assert before.tobytes() == after.tobytes()
    verdict = Verifier([key.anchor]).verify(signed)
    assert (verdict.state, verdict.parents) == ("trusted", ["source.png"])
    assert verdict.action("c2pa.opened")
    assert verdict.action("c2pa.edited") == {}


def test_trusted_untrusted_broken_and_missing_are_told_apart(
    key: SigningKey, tmp_path: Path
) -> None:
    signed = sign(key)
    flipped = bytearray(signed)
    flipped[-20] ^= 1  # in the picture's data
    other = home_test_key(tmp_path / "other")
    for picture, verifier, state in (
        (signed, Verifier([key.anchor]), "trusted"),
        (signed, Verifier(), "untrusted"),
        (signed, Verifier([other.anchor]), "untrusted"),
        (bytes(flipped), Verifier([key.anchor]), "broken"),
        (bytes(flipped), Verifier(), "broken"),
        (png(), Verifier(), "missing"),
        (b"nonsense", Verifier(), "broken"),
        (b"", Verifier(), "broken"),
    ):
        verdict = verifier.verify(picture)
        assert verdict.state == state
        assert verdict.intact is (state in ("trusted", "untrusted"))
        assert bool(verdict.problems) is (state != "trusted")
        for _ in range(2):
            assert verifier.verify_once(picture) == verdict


def test_a_verdict_is_remembered_by_the_bytes_and_the_anchors(
    key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Counting(Verifier):
        def verify(self, picture: bytes, media_type: str = "image/png") -> Verdict:
            asked.append(picture)
            return super().verify(picture, media_type)

    monkeypatch.setattr(pictures, "_verdicts", {})
    one, other = sign(key), sign(key, png((3, 2, 1)))
    for picture, anchors in ((one, [key.anchor]), (one, []), (other, [])) * 3:
        Counting(anchors).verify_once(picture)
    assert asked == [one, one, other]
    monkeypatch.setattr(pictures, "REMEMBERED", 3)
    Counting().verify_once(png())
    assert len(pictures._verdicts) == 1, "memory has a bound"


@pytest.mark.parametrize("data", [b"", b"nonsense", png()[:-3]])
def test_what_is_no_whole_png_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"PNG"):
        without_credentials(data)


def test_what_is_no_picture_is_not_signed(key: SigningKey) -> None:
    with pytest.raises(SigningError, match="'t' can't be signed"):
        sign(key, b"nonsense")


def test_anchors_are_read_from_a_file(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_text(key.anchor)
    assert keys.read_anchors(path) == key.anchor
    path.write_text("nothing")
    with pytest.raises(SigningKeyError, match="no certificate"):
        keys.read_anchors(path)
