"""The models that audits are about, by the names of their partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cf_lab_assets.models import artifacts
from cf_lab_assets.models.artifacts import ModelUnknown
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.contract import Audited


def open_audited(name: str, bucket: Bucket, batch: int) -> Audited:
    """An audited model, ready to be asked.

    Args:
        name: as `CF_LAB_AUDITED` gives it.
        bucket: has its files, where it is a model that `models/artifacts` fetched.
        batch: sequences a forward pass, of a generative model.

    Raises:
        ModelUnknown: no audited model has this name.
        LabError: it can't be loaded, or was not fetched yet.
    """
    from cf_lab_resources.engine.adapters import open_adapter
    from cf_lab_resources.engine.loading import load_model

    sources = {one.name: one for one in Settings.from_env().audited}
    if name not in sources:
        raise ModelUnknown(f"no audited model is named {name!r}; known are {', '.join(sources)}")
    if sources[name].model is None:
        return open_adapter(sources[name])
    if name in artifacts.FOLDERS:
        return load_model(artifacts.model_folder(name), batch=batch)
    return load_model(artifacts.in_use_folder(name, bucket), batch=batch)
