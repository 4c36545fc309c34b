"""What whoever answers for an audit says of it: purpose, system under test, data, thresholds.

Nothing is assumed where nothing was said: such a field reads "not stated" in the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cf_lab_assets.audits import wording
from cf_lab_assets.audits.errors import AuditError
from cf_lab_assets.audits.wording import NOT_STATED


class SystemUnderTest(BaseModel):
    """An audited model, as its owner describes it.

    Attributes:
        revision: or version.
        sha256: of its files.
        licence: SPDX identifier or name.
        preprocessing: of pictures and texts.
        prompt_templates: that made the queries.
        decoding: parameters under which answers were sampled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str = NOT_STATED
    sha256: str = NOT_STATED
    licence: str = NOT_STATED
    preprocessing: str = NOT_STATED
    prompt_templates: tuple[str, ...] = ()
    decoding: str = NOT_STATED


class DataSource(BaseModel):
    """Where scored pictures come from.

    Attributes:
        name: of the data set.
        origin: how and why it was collected or generated.
        synthetic: whether pictures are generated or edited; None where nobody said.
        generator_and_filter_models: name and hash of each, by role.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = NOT_STATED
    origin: str = NOT_STATED
    synthetic: bool | None = None
    generator_and_filter_models: dict[str, dict[str, Any]] = {}


class About(BaseModel):
    """All that is said about an audit besides its declaration.

    Attributes:
        intended_purpose: what the audit is for.
        independence: who made it, and how independent they are.
        responsible: persons who answer for the report.
        thresholds_set_by: who set alpha, the minimum of sets and the limits, and why.
        model: the system under test.
        data: where the pictures come from.
        limitations: besides those that every report states.
        residual_risks: besides those that every report states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_purpose: str = wording.PURPOSE
    independence: str = wording.INDEPENDENCE
    responsible: tuple[str, ...] = ()
    thresholds_set_by: str = "whoever made the audit's declaration"
    model: SystemUnderTest = SystemUnderTest()
    data: DataSource = DataSource()
    limitations: tuple[str, ...] = ()
    residual_risks: tuple[str, ...] = ()


def read_about(path: Path) -> About:
    """Read `About` from a JSON file.

    Raises:
        AuditError: it can't be read, or says what is not known here; the message names it.
    """
    try:
        return About.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AuditError(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()
        )
        raise AuditError(f"{path}: {faults}") from error
