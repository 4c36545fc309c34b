"""A model that changes where it comes from is found once it has settled, and taken or told of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from safetensors.numpy import save_file

from cf_lab_assets import alerting
from cf_lab_assets.models import upstream
from cf_lab_assets.models.upstream import Seen, look
from cf_lab_resources.engine import model_sources
from cf_lab_resources.engine.model_sources import Listing, ModelSource, SourceFile
from cf_lab_resources.engine.model_uris import ModelUri, parse_model_uri


def write(folder: Path, value: float) -> None:
    folder.mkdir(exist_ok=True)
    save_file({"w": np.full(round(10 * value), value, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "clip", 1.0)
    return tmp_path / "clip"


@pytest.fixture
def models(folder: Path) -> dict[str, ModelUri]:
    return {"clip": parse_model_uri(folder.as_uri())}


def test_a_folder_that_changed_is_found_once_it_has_settled(
    folder: Path, models: dict[str, ModelUri]
) -> None:
    first = look(models, Seen())
    assert first.changed == []
    seen = look(models, first.seen).seen
    write(folder, 2.0)
    half = look(models, seen)
    assert half.changed == []  # it may still be written
    write(folder, 3.0)
    more = look(models, half.seen)
    assert more.changed == []
    settled = look(models, more.seen)
    assert settled.changed == ["clip"]
    assert look(models, settled.seen).changed == []


def test_a_source_that_is_away_for_a_while_is_neither_a_change_nor_forgotten(
    folder: Path, models: dict[str, ModelUri]
) -> None:
    seen = look(models, look(models, Seen()).seen).seen
    away = folder.rename(folder.with_name("elsewhere"))
    found = look(models, seen)
    assert found.changed == []
    assert "there is no folder" in found.unreachable[0]
    away.rename(folder)
    assert look(models, found.seen).changed == []
    write(folder, 2.0)
    assert look(models, look(models, found.seen).seen).changed == ["clip"]
    assert look({}, found.seen).seen == Seen()


class Hub(ModelSource):
    """Stands for a hub, which can't be reached from tests: a branch that moves."""

    commit = "a" * 40

    def listing(self) -> Listing:
        return Listing(self.commit, (SourceFile("model.safetensors", 1, "1"),))

    def read(self, file: SourceFile, offset: int) -> Iterator[bytes]:
        raise AssertionError("nothing is fetched")


def test_a_branch_that_moved_is_told_and_a_commit_never_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub()
    monkeypatch.setattr(upstream, "open_source", lambda _: hub)
    models = {
        "branch": parse_model_uri("hf://owner/name@main"),
        "commit": parse_model_uri(f"hf://owner/name@{'b' * 40}"),
    }
    seen = look(models, look(models, Seen()).seen).seen
    assert set(seen.known) == {"branch"}
    hub.commit = "c" * 40
    found = look(models, look(models, seen).seen)
    assert (found.changed, found.moved) == ([], {"branch": "c" * 40})
    assert look(models, found.seen).moved == {}


def test_the_sensor_asks_for_one_run_a_change_and_tells_of_moves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    real = model_sources.open_source
    monkeypatch.setattr(
        upstream, "open_source", lambda uri: hub if uri.scheme == "hf" else real(uri)
    )
    monkeypatch.setenv("CF_LAB_EDITOR", folder.as_uri())
    monkeypatch.setenv("CF_LAB_AUDITED", "far=hf://owner/name@main")

    def tick(cursor: str | None) -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            return upstream.models_changed_upstream(context)

    cursor = tick(tick(None).cursor).cursor
    assert set(json.loads(cursor)["known"]) == {folder.as_uri(), "far"}
    write(folder, 2.0)
    hub.commit = "d" * 40
    cursor = tick(cursor).cursor
    found = tick(cursor)
    (request,) = found.run_requests
    assert request.tags["cf_lab/changed"] == folder.as_uri()
    (told,) = found.asset_events
    assert told.metadata[alerting.ALERT].value == "ModelMovedUpstream"
    assert "d" * 40 in told.description
    again = tick(found.cursor)
    assert not again.run_requests
    assert not again.asset_events
