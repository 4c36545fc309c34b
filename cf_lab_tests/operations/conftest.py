"""Stores of a test of the reviews: a bucket, a database, an empty cache, a home of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cf_lab_resources.bucket import Bucket, open_bucket


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CF_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def plain_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that neither this machine nor its user has configured."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket((tmp_path / "bucket").as_uri())
