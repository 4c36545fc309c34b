"""Who publishes packaged datasets, under which licence, and the key that signs their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cf_lab_resources.credentials.keys import SigningKey
    from cf_lab_resources.settings import Settings


@dataclass(frozen=True)
class Publication:
    """What a package says of its publisher; nothing is assumed where nothing was said.

    Attributes:
        key: signs the pictures.
        license: SPDX identifier or URL; None where unknown.
        publisher: a name; None where unknown.
    """

    key: SigningKey
    license: str | None
    publisher: str | None

    @classmethod
    def from_settings(cls, settings: Settings) -> Publication:
        """As the settings say.

        Raises:
            SigningKeyError: The configured key or certificate can't be used.
        """
        from cf_lab_resources.credentials.home_key import signing_key

        return cls(signing_key(settings), settings.dataset_license, settings.dataset_publisher)

    @property
    def identity(self) -> dict[str, str | None]:
        """What makes packages of the same dataset differ."""
        return {
            "signer": self.key.fingerprint,
            "license": self.license,
            "publisher": self.publisher,
        }
