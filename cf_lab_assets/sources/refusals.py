"""Why something from outside is not taken: errors of rows and of whole deliveries."""

from __future__ import annotations

from dataclasses import dataclass

from cf_lab_resources.errors import LabError


class SourceError(LabError):
    """Base of the errors of this part; `reason` is a code that does not change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeliveryRefused(SourceError):
    """A whole delivery can't be taken.

    Reasons: `bad_batch_name`, `missing_folder`, `unreadable_folder`, `unknown_kind`, `two_kinds`,
    `missing_metadata`, `two_metadata_files`, `unreadable_metadata`, `missing_column`,
    `damaged_archive`, `nothing_accepted`, `not_delivered`.
    """


class BatchExists(SourceError):
    """A batch of this name is stored with other content (`batch_exists`)."""


class BatchBroken(SourceError):
    """What is stored of a batch is not what its manifest says (`batch_broken`)."""


class RowRefused(SourceError):
    """One row can't be taken; ends in quarantine while the rest goes on.

    Reasons: `malformed_row`, `not_utf8`, `missing_file_name`, `bad_file_name`, `path_escapes`,
    `symlink`, `missing_picture`, `two_pictures`, `missing_caption`, `empty_caption`,
    `control_characters`, `caption_too_long`, `unknown_attribute_value`, `conflicting_attributes`,
    `duplicate_file_name`, `duplicate_picture`, `duplicate_caption`, `mask_size`, and those of
    `cf_lab_resources.images.ImageRefused`.
    """


@dataclass(frozen=True)
class Rejected:
    """A quarantined row; `row` counts data rows from 1 and is None for a stray file.

    `mask` is the file of its mask, where it names one.
    """

    row: int | None
    file_name: str | None
    reason: str
    detail: str
    caption: str | None
    mask: str | None = None
