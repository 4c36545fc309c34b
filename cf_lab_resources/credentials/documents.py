"""Detached signatures of documents with the same key that signs pictures.

The algorithms are JOSE's (RFC 7518, RFC 8037) by the names that C2PA uses; ECDSA signatures are in
DER, as openssl reads them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import date

    from cf_lab_resources.credentials.keys import SigningKey


def sign(data: bytes, key: SigningKey) -> bytes:
    """The key's signature of some bytes."""
    from cryptography.hazmat.primitives import serialization

    private: Any = serialization.load_pem_private_key(key.private_key.encode(), password=None)
    return bytes(private.sign(data, *_scheme(key.algorithm)))


def fault(data: bytes, signature: bytes, certificates: str, algorithm: str, day: date) -> str:
    """What is wrong with a signature; an empty word where nothing is.

    Args:
        data: the bytes that were signed.
        signature: of `sign`.
        certificates: PEM chain, the signer's first; each must have issued the one before it.
        algorithm: as `SigningKey` names it.
        day: on which it was signed; the certificate must have been valid then.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        chain = x509.load_pem_x509_certificates(certificates.encode())
        for one, issuer in itertools.pairwise(chain):
            one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return "the certificate chain is broken"
    leaf = chain[0]
    if not leaf.not_valid_before_utc.date() <= day <= leaf.not_valid_after_utc.date():
        return "the certificate was not valid on the day of signing"
    try:
        public: Any = leaf.public_key()
        public.verify(signature, data, *_scheme(algorithm))
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, KeyError):
        return "the signature is not the certificate's of these contents"
    return ""


def identity(certificates: str) -> tuple[str, str, bool]:
    """Subject and SHA-256 of a PEM chain's first certificate, and whether it is the test key's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    from cf_lab_resources.credentials.keys import TEST_ORGANISATION

    leaf = x509.load_pem_x509_certificates(certificates.encode())[0]
    names = [str(name.value) for name in leaf.subject]
    fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
    return leaf.subject.rfc4514_string(), fingerprint, TEST_ORGANISATION in names


def is_anchored(certificates: str, anchors: str) -> bool:
    """Whether a certificate of the chain is among the anchors, or was issued by one of them."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    trusted = x509.load_pem_x509_certificates(anchors.encode())
    for one in x509.load_pem_x509_certificates(certificates.encode()):
        for anchor in trusted:
            try:
                if one != anchor:
                    one.verify_directly_issued_by(anchor)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
    return False


def _scheme(algorithm: str) -> tuple[Any, ...]:
    """Arguments of the key's `sign` and `verify` after the data.

    Raises:
        KeyError: no such algorithm.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding

    if algorithm == "ed25519":
        return ()
    if algorithm == "ps256":
        mask = padding.MGF1(hashes.SHA256())
        return padding.PSS(mask, padding.PSS.DIGEST_LENGTH), hashes.SHA256()
    sizes = {"es256": hashes.SHA256(), "es384": hashes.SHA384(), "es512": hashes.SHA512()}
    return (ec.ECDSA(sizes[algorithm]),)
