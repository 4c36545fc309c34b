"""A source batch of starter portraits in a bucket of its own."""

import pytest

from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.starter import world
from cf_lab_assets.starter.portraits import write_image_folder
from cf_lab_resources.bucket import open_bucket


@pytest.fixture
def bucket(tmp_path):
    return open_bucket(f"file://{tmp_path / 'bucket'}")


@pytest.fixture
def batch(bucket, tmp_path):
    folder = tmp_path / "portraits"
    write_image_folder(folder, 3, seed=41)
    ingest(folder, "small", bucket, world.ATTRIBUTES)
    return "small"
