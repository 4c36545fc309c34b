"""The key that signs pictures, with its certificate chain: configured, or a test key.

The test key is made once for each home, is readable by its owner only, and says in its own
certificate that it is none for production.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import C2PA_CERTIFICATE_VARIABLE, C2PA_KEY_VARIABLE

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from cf_lab_resources.settings import Settings

TEST_ORGANISATION = "TEST KEY, not for production"
TEST_YEARS = 10
MIN_RSA_BITS = 2048  # C2PA 2.1, section 14.5: the least that validators accept
KEY_FILE, CERTIFICATE_FILE = "key.pem", "certificate.pem"


class SigningKeyError(LabError):
    """The configured key or certificate can't be used; the message says what is wrong."""


@dataclass(frozen=True)
class SigningKey:
    """A private key with its certificate chain.

    Attributes:
        algorithm: COSE name as c2pa spells it, such as `es256`; follows from the key.
        certificates: PEM chain, the key's own certificate first.
        private_key: Unencrypted PKCS #8 PEM; never shown.
        subject: Of the key's own certificate, RFC 4514.
        fingerprint: SHA-256 of the key's own certificate, 64 hexadecimal digits.
        is_test: Whether the certificate is the lab's own test certificate.
    """

    algorithm: str
    certificates: str
    private_key: str = field(repr=False)
    subject: str
    fingerprint: str
    is_test: bool

    @property
    def anchor(self) -> str:
        """PEM of the chain's last certificate: who trusts it trusts this key."""
        return chain_anchor(self.certificates)


def chain_anchor(certificates: str) -> str:
    """The last certificate of a PEM chain."""
    marker = "-----BEGIN CERTIFICATE-----"
    return marker + certificates.rpartition(marker)[2]


def signing_key(settings: Settings) -> SigningKey:
    """The configured key, or the home's test key, which is made where it is missing.

    Raises:
        SigningKeyError: One of the two files is missing or unusable, or they don't belong together.
    """
    key, certificate = settings.c2pa_key, settings.c2pa_certificate
    if key is None and certificate is None:
        return home_test_key(settings.signing_folder)
    if key is None or certificate is None:
        missing = C2PA_KEY_VARIABLE if key is None else C2PA_CERTIFICATE_VARIABLE
        raise SigningKeyError(
            f"{missing} is not set; set both {C2PA_KEY_VARIABLE} and {C2PA_CERTIFICATE_VARIABLE}, "
            "or neither for the test key"
        )
    return load_signing_key(key, certificate)


def load_signing_key(key_path: Path, certificate_path: Path) -> SigningKey:
    """A key and its chain from PEM files.

    Raises:
        SigningKeyError: A file can't be read or is no PEM of its kind, the key is encrypted or of
            a kind that C2PA does not know, or the certificate is of another key or not valid now.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = _private_key(_read(key_path), key_path)
    try:
        chain = x509.load_pem_x509_certificates(_read(certificate_path))
    except ValueError as error:
        raise SigningKeyError(
            f"{certificate_path} holds no certificate in PEM form; name the chain's file, the "
            "key's own certificate first"
        ) from error
    leaf = chain[0]
    _check_certificate(leaf, key, key_path, certificate_path)
    return SigningKey(
        algorithm=_algorithm(key, key_path),
        certificates="".join(
            one.public_bytes(serialization.Encoding.PEM).decode() for one in chain
        ),
        private_key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        subject=leaf.subject.rfc4514_string(),
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        is_test=TEST_ORGANISATION in [str(name.value) for name in leaf.subject],
    )


def read_anchors(path: Path) -> str:
    """PEM certificates to trust, from a file.

    Raises:
        SigningKeyError: It can't be read, or holds no certificate.
    """
    from cryptography import x509

    data = _read(path)
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise SigningKeyError(f"{path} holds no certificate in PEM form") from error
    return data.decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningKeyError(f"{path} can't be read: {error.strerror}") from error


def _private_key(pem: bytes, path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise SigningKeyError(
            f"{path} is encrypted; decrypt it, for example with `openssl pkcs8`, and protect the "
            "file by its mode"
        ) from error
    except (ValueError, UnsupportedAlgorithm):
        # Without the cause: the parser's message may quote what it read.
        raise SigningKeyError(f"{path} holds no private key in PEM form") from None


def _check_certificate(
    leaf: x509.Certificate, key: Any, key_path: Path, certificate_path: Path
) -> None:
    from datetime import UTC, datetime

    if leaf.public_key() != key.public_key():
        raise SigningKeyError(
            f"the first certificate in {certificate_path} ({leaf.subject.rfc4514_string()}) is of "
            f"another key than {key_path}; put the key's own certificate first"
        )
    now = datetime.now(UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise SigningKeyError(
            f"the certificate in {certificate_path} is valid from {leaf.not_valid_before_utc:%F} "
            f"to {leaf.not_valid_after_utc:%F}, which is not now; have it issued anew"
        )


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return "ps256"
    raise SigningKeyError(
        f"{path} holds a key that C2PA does not sign with; use one of {', '.join(curves)}, "
        f"Ed25519, or RSA of at least {MIN_RSA_BITS} bits"
    )


def home_test_key(folder: Path) -> SigningKey:
    """The test key in a folder; made, with a certificate authority of its own, where it is missing.

    Raises:
        SigningKeyError: The folder's files are damaged.
    """
    if not folder.is_dir():
        _make_test_key(folder)
    return load_signing_key(folder / KEY_FILE, folder / CERTIFICATE_FILE)


def _make_test_key(folder: Path) -> None:
    """Key and chain, whole or not at all; where two make one at once, the first one stays."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, authority = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = [
        _test_certificate("picture signer", key, authority),
        _test_certificate("root", authority, authority),
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))  # mode 0700
    descriptor = os.open(staged / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    (staged / CERTIFICATE_FILE).write_bytes(
        b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    )
    try:
        staged.rename(folder)
    except OSError:
        for name in (KEY_FILE, CERTIFICATE_FILE):
            (staged / name).unlink()
        staged.rmdir()
        if not folder.is_dir():
            raise


def _test_certificate(
    name: str, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate as C2PA 2.1, section 14.5, wants it: of the root where both keys are one."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    is_root = key is authority
    usages = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usages |= {"key_cert_sign": True} if is_root else {"digital_signature": True}
    known = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_test_name(name))
        .issuer_name(_test_name("root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * TEST_YEARS))
        .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), critical=True)
        .add_extension(x509.KeyUsage(**usages), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False
        )
    )
    if not is_root:
        email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(email, critical=False)
    return builder.sign(authority, hashes.SHA256())


def _test_name(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"counterfactual lab TEST {name}"),
        ]
    )
