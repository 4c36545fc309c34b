"""The home's own test key, used where no key is configured.

It is made once for each home, with a certificate authority of its own, is readable by its owner
only, and says in its certificate that it is none for production.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cf_lab_resources.credentials.keys import (
    TEST_ORGANISATION,
    SigningKey,
    SigningKeyError,
    load_signing_key,
)
from cf_lab_resources.settings import C2PA_CERTIFICATE_VARIABLE, C2PA_KEY_VARIABLE

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from cf_lab_resources.settings import Settings

TEST_YEARS = 10
KEY_FILE, CERTIFICATE_FILE = "key.pem", "certificate.pem"


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
