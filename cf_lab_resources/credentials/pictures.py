"""Pictures with Content Credentials inside: signing them, and reading back what was signed.

A PNG keeps its own bytes; the credentials are one more chunk. So the picture as it was before
can be had back, bit for bit, by `without_credentials`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cf_lab_resources import __version__
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_resources.credentials.keys import SigningKey

PNG = "image/png"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CREDENTIALS_CHUNK = b"caBX"  # C2PA 2.1, section A.3.2
GENERATOR = {"name": "Multimodal Counterfactual Lab", "version": __version__}
# A trust list that does not have the signer says nothing of whether the picture is intact.
UNTRUSTED = "signingCredential.untrusted"

# Verdicts that a process keeps; one has about 4 kB.
REMEMBERED = 20_000
_verdicts: dict[tuple[tuple[str, ...], bytes], Verdict] = {}

State = Literal["trusted", "untrusted", "broken", "missing"]


class SigningError(LabError):
    """A picture can't be signed; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What a picture's credentials are worth.

    Attributes:
        state: `trusted` and `untrusted` are intact, `broken` is not, `missing` has none.
        problems: C2PA's failure codes, or the reader's message.
        signer: Organisation and name in the certificate; empty where unknown.
        serial: Serial number of the certificate, decimal; empty where unknown.
        manifest: The active manifest as c2pa reads it; empty unless intact.
    """

    state: State
    problems: tuple[str, ...]
    signer: str = ""
    serial: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def intact(self) -> bool:
        """Whether signature, assertions and picture belong together."""
        return self.state in ("trusted", "untrusted")

    @property
    def parents(self) -> list[str]:
        """Titles of the ingredients that the picture was made from."""
        ingredients = self.manifest.get("ingredients", [])
        return [
            str(one.get("title")) for one in ingredients if one.get("relationship") == "parentOf"
        ]

    def action(self, name: str) -> Mapping[str, Any]:
        """The first action of that name; empty where there is none."""
        for assertion in self.manifest.get("assertions", []):
            if assertion["label"].startswith("c2pa.actions"):
                for action in assertion["data"]["actions"]:
                    if action["action"] == name:
                        found: Mapping[str, Any] = action
                        return found
        return {}


def _context(intent: str | None) -> Any:
    import c2pa

    builder: dict[str, Any] = {
        "thumbnail": {"enabled": False},
        "claim_generator_info": GENERATOR,
        **({"intent": intent} if intent else {}),
    }
    verify = {"verify_after_sign": False, "remote_manifest_fetch": False}
    return c2pa.Context.from_dict({"builder": builder, "verify": verify})


class PictureSigner:
    """Signs PNG pictures with one key. Of use to one thread at a time.

    More threads were slower when measured: the library calls back into Python for every read.
    """

    def __init__(self, key: SigningKey) -> None:
        """Takes a key into use.

        Raises:
            SigningError: Pictures signed with it do not verify.
        """
        import c2pa

        self._edits, self._creates = (_context(intent) for intent in ("edit", None))
        info = c2pa.C2paSignerInfo(
            key.algorithm.encode(), key.certificates.encode(), key.private_key.encode(), None
        )
        try:
            self._signer = c2pa.Signer.from_info(info)
        except c2pa.C2paError as error:
            raise SigningError(f"the key of {key.subject!r} is refused: {error}") from None
        self._try(key)

    def _try(self, key: SigningKey) -> None:
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (1, 1)).save(buffer, "PNG")
        trial = buffer.getvalue()
        try:
            verdict = Verifier([key.anchor]).verify(self.sign(trial, trial, "source", {}))
            fault = "" if verdict.intact else ", ".join(verdict.problems)
        except SigningError as error:
            fault = str(error)
        if fault:
            raise SigningError(
                f"{key.subject!r} signs nothing that verifies: {fault}; C2PA wants a certificate "
                "for digital signatures with the extended key usage emailProtection"
            )

    def sign(
        self,
        picture: bytes,
        source: bytes | None,
        source_title: str,
        definition: Mapping[str, Any],
    ) -> bytes:
        """The picture with credentials that name the source as what it was made from.

        Args:
            picture: PNG.
            source: PNG that was opened and edited; None where the picture was made of nothing.
            source_title: Of the ingredient.
            definition: c2pa's manifest definition: title and assertions. The action c2pa.opened
                is put before the ones in it where there is a source; else the first of them must
                be c2pa.created.

        Raises:
            SigningError: The library refuses picture, source or definition.
        """
        import c2pa

        signed = io.BytesIO()
        parent = {"title": source_title, "relationship": "parentOf"}
        try:
            context = self._creates if source is None else self._edits
            with c2pa.Builder(dict(definition), context=context) as builder:
                if source is not None:
                    builder.add_ingredient(parent, PNG, io.BytesIO(source))
                builder.sign(self._signer, PNG, io.BytesIO(picture), signed)
        except c2pa.C2paError as error:
            raise SigningError(f"{definition.get('title')!r} can't be signed: {error}") from error
        return signed.getvalue()


class Verifier:
    """Reads credentials and says what they are worth; asks no network."""

    def __init__(self, anchors: Sequence[str] = ()) -> None:
        """Takes PEM certificates to be trusted besides the C2PA trust list of the library."""
        import c2pa

        self._anchors = tuple(anchors)
        trust = {"user_anchors": "".join(anchors)} if anchors else {}
        self._context = c2pa.Context.from_dict(
            {"trust": trust, "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
        )

    def verify(self, picture: bytes, media_type: str = PNG) -> Verdict:
        """What a picture's credentials are worth, whatever the bytes are."""
        import c2pa

        try:
            with c2pa.Reader(media_type, io.BytesIO(picture), context=self._context) as reader:
                results = reader.get_validation_results() or {}
                manifest = reader.get_active_manifest() or {}
        except c2pa.C2paError.ManifestNotFound:
            return Verdict("missing", ("no Content Credentials",))
        except c2pa.C2paError as error:
            return Verdict("broken", (str(error),))
        return _verdict(results, manifest)

    def verify_once(self, picture: bytes) -> Verdict:
        """As `verify`, which is not asked twice in a process about the same bytes and anchors.

        The bytes are hashed each time. A verdict is forgotten with the process, at the latest, so
        that a certificate's end is noticed by the next one.
        """
        key = self._anchors, hashlib.sha256(picture).digest()
        if key not in _verdicts:
            if len(_verdicts) >= REMEMBERED:
                _verdicts.clear()
            _verdicts[key] = self.verify(picture)
        return _verdicts[key]


def _verdict(results: Mapping[str, Any], manifest: Mapping[str, Any]) -> Verdict:
    codes = [failure["code"] for failure in _failures(results)]
    problems = tuple(dict.fromkeys(code for code in codes if code != UNTRUSTED))
    info = manifest.get("signature_info") or {}
    signer = ", ".join(str(info[part]) for part in ("issuer", "common_name") if info.get(part))
    serial = str(info.get("cert_serial_number") or "")
    if problems or not manifest:
        return Verdict("broken", problems or ("no active manifest",), signer, serial)
    if UNTRUSTED in codes:
        return Verdict("untrusted", (UNTRUSTED,), signer, serial, manifest)
    return Verdict("trusted", (), signer, serial, manifest)


def _failures(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Failures of the picture's own manifest and of what it says of its ingredients."""
    deltas = [delta["validationDeltas"] for delta in results.get("ingredientDeltas") or []]
    parts = [results.get("activeManifest") or {}, *deltas]
    return [failure for part in parts for failure in part.get("failure") or []]


def without_credentials(png: bytes) -> bytes:
    """A PNG's bytes without its credentials' chunk; as they were before it was signed.

    Raises:
        ValueError: It is no whole PNG.
    """
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError("not a PNG")
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")  # length, type, data, CRC
        if end > len(png):
            raise ValueError("the PNG is cut off")
        if png[at + 4 : at + 8] != CREDENTIALS_CHUNK:
            kept.append(png[at:end])
        at = end
    return b"".join(kept)
