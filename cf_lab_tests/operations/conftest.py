"""Stores of a test of the reviews: a bucket, a database, an empty cache, a home of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cf_lab_resources.bucket import Bucket, open_bucket


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket((tmp_path / "bucket").as_uri())
