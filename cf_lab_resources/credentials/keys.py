"""The key that signs pictures, with its certificate chain, as it is configured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cryptography import x509


TEST_ORGANISATION = "TEST KEY, not for production"
MIN_RSA_BITS = 2048  # C2PA 2.1, section 14.5: the least that validators accept


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
