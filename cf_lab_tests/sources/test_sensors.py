from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cf_lab_assets.sources import assets, batches
from cf_lab_assets.sources.ingest import ingest
from cf_lab_assets.sources.sensors import QUIET_LOOKS, incoming_sensor
from cf_lab_resources.bucket import Bucket, BucketError
from cf_lab_resources.dagster import BucketResource
from cf_lab_tests.sources.conftest import ATTRIBUTES, make_delivery, png

JOB = dg.define_asset_job("main", selection=[assets.pairs])


@pytest.fixture
def instance(memory_folder: Path) -> Iterator[dg.DagsterInstance]:
    """On disk: a tick reads the partitions by way of the instance's reference."""
    with (
        tempfile.TemporaryDirectory(dir=memory_folder) as folder,
        dg.DagsterInstance.local_temp(folder) as instance,
    ):
        yield instance


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "incoming"


class Daemon:
    """Ticks the sensor as Dagster's daemon does: cursor kept, partitions registered."""

    def __init__(self, bucket: Bucket, instance: dg.DagsterInstance) -> None:
        self.resources = {"bucket": BucketResource(url=bucket.url("x").removesuffix("/x"))}
        self.sensor = incoming_sensor(JOB)
        self.defs = dg.Definitions(
            assets=[assets.pairs], jobs=[JOB], sensors=[self.sensor], resources=self.resources
        )
        self.instance = instance
        self.cursor: str | None = None
        self.said: str | None = None

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref(),
            cursor=self.cursor,
            definitions=self.defs,
            resources=self.resources,
        )
        data = self.sensor.evaluate_tick(context)
        self.cursor, self.said = data.cursor, data.skip_message
        for request in data.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(
                request.partitions_def_name, request.partition_keys
            )
        return list(data.run_requests or [])

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        job = self.defs.resolve_job_def("main")
        return job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            resources=self.resources,
            raise_on_error=False,
        )

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("source_batches"))


@pytest.fixture
def daemon(bucket: Bucket, instance: dg.DagsterInstance) -> Daemon:
    return Daemon(bucket, instance)


def test_nothing_delivered(daemon: Daemon) -> None:
    assert daemon.tick() == []
    assert daemon.said == "nothing in incoming/"


def test_a_complete_delivery_becomes_a_partition_and_a_run_once(
    daemon: Daemon, incoming: Path, bucket: Bucket
) -> None:
    make_delivery(incoming / "spring")
    assert daemon.tick() == []
    assert daemon.said == "waiting for spring to be complete"
    assert daemon.partitions == []
    (request,) = daemon.tick()
    assert request.partition_key == "spring"
    assert request.run_key
    assert daemon.partitions == ["spring"]
    assert daemon.tick() == []
    assert daemon.run(request).success
    assert batches.stored_batches(bucket) == ["spring"]
    assert daemon.tick() == []
    daemon.cursor = None  # a lost cursor does not take it in again
    assert [daemon.tick(), daemon.tick(), daemon.tick()] == [[], [], []]


def test_a_delivery_that_still_grows_is_waited_for(daemon: Daemon, incoming: Path) -> None:
    folder = make_delivery(incoming / "spring")
    daemon.tick()
    (folder / "images" / "3.png").write_bytes(png(3))
    assert daemon.tick() == []
    assert len(daemon.tick()) == 1


@pytest.mark.parametrize("name", ["0.tar", "data/train.parquet", "captions.jsonl"])
def test_a_delivery_without_a_metadata_file_is_complete_when_it_stopped_changing(
    daemon: Daemon, incoming: Path, bucket: Bucket, name: str
) -> None:
    from cf_lab_tests.sources import test_captionsets, test_shards, test_tables

    path = incoming / "spring" / name
    if name.endswith(".tar"):
        test_shards.tar(path, test_shards.good(0))
        test_shards.tar(path.with_name("1.tar"), test_shards.good(1))
    elif name.endswith(".parquet"):
        test_tables.write(path, test_tables.rows(2))
    else:
        test_captionsets.write(path, {"caption": "one"}, {"caption": "two"})
    assert [daemon.tick() for _ in range(QUIET_LOOKS)] == [[]] * QUIET_LOOKS
    assert daemon.said == "waiting for spring to be complete"
    (request,) = daemon.tick()
    assert daemon.run(request).success
    manifest = batches.read_manifest(bucket, "spring")
    assert manifest is not None
    assert manifest.rows == 2
    assert [daemon.tick(), daemon.tick()] == [[], []]


def test_a_delivery_of_two_kinds_is_warned_of_and_not_run(daemon: Daemon, incoming: Path) -> None:
    (incoming / "spring").mkdir(parents=True)
    for name in ("a.tar", "b.parquet"):
        (incoming / "spring" / name).write_bytes(b"x")
    assert [daemon.tick() for _ in range(5)] == [[]] * 5
    assert daemon.said is not None
    assert "deliver them apart" in daemon.said


def test_a_folder_without_metadata_is_refused_until_they_come(
    daemon: Daemon, incoming: Path
) -> None:
    folder = make_delivery(incoming / "spring")
    metadata = (folder / "metadata.csv").read_bytes()
    (folder / "metadata.csv").unlink()
    assert [daemon.tick() for _ in range(5)] == [[]] * 5
    assert daemon.said is not None
    assert daemon.said.startswith("incoming/spring refused: incoming/spring has images/")
    assert "metadata.csv" in daemon.said
    assert daemon.partitions == []
    (folder / "metadata.csv").write_bytes(metadata)
    assert daemon.tick() == []
    assert [request.partition_key for request in daemon.tick()] == ["spring"]


def test_a_refused_delivery_is_run_once_and_again_only_when_corrected(
    daemon: Daemon, incoming: Path, bucket: Bucket
) -> None:
    folder = make_delivery(incoming / "spring")
    good = (folder / "metadata.csv").read_bytes()
    (folder / "metadata.csv").write_text("wrong,columns\n")
    daemon.tick()
    (request,) = daemon.tick()
    assert not daemon.run(request).success
    assert [daemon.tick() for _ in range(3)] == [[], [], []]
    (folder / "metadata.csv").write_bytes(good)
    daemon.tick()
    (again,) = daemon.tick()
    assert again.run_key != request.run_key
    assert daemon.run(again).success


def test_a_bad_name_is_warned_of_once_and_never_becomes_a_partition(
    daemon: Daemon, incoming: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_delivery(incoming / "My Photos")
    assert [daemon.tick() for _ in range(4)] == [[], [], [], []]
    assert capfd.readouterr().err.count("incoming/My Photos refused") == 1
    assert daemon.partitions == []
    assert daemon.said is not None
    assert "'my-photos'" in daemon.said


def test_another_delivery_under_the_name_of_a_stored_batch_is_not_run(
    daemon: Daemon, incoming: Path, folder: Path, bucket: Bucket
) -> None:
    ingest(folder, None, bucket, ATTRIBUTES)
    make_delivery(incoming / "spring", 5)
    assert [daemon.tick() for _ in range(3)] == [[], [], []]
    assert daemon.said is not None
    assert "under another name" in daemon.said


def test_a_batch_with_a_broken_manifest_is_not_run(
    daemon: Daemon, incoming: Path, bucket: Bucket
) -> None:
    bucket.put_bytes(batches.manifest_key("spring"), b"broken")
    make_delivery(incoming / "spring")
    assert [daemon.tick() for _ in range(3)] == [[], [], []]


def test_a_delivery_that_can_not_be_looked_at_does_not_stop_the_others(
    daemon: Daemon, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cf_lab_assets.sources.deliveries import FolderDelivery
    from cf_lab_assets.sources.refusals import DeliveryRefused

    entries = FolderDelivery._entries

    def refuse(self: FolderDelivery, below: str) -> object:
        if self.where.endswith("/locked"):
            raise DeliveryRefused("unreadable_folder", "locked")
        return entries(self, below)

    monkeypatch.setattr(FolderDelivery, "_entries", refuse)
    make_delivery(incoming / "locked")
    make_delivery(incoming / "spring")
    daemon.tick()
    assert [request.partition_key for request in daemon.tick()] == ["spring"]


def test_a_store_that_fails_is_an_error_of_the_tick_and_keeps_the_cursor(
    daemon: Daemon, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_delivery(incoming / "spring")
    daemon.tick()
    before = daemon.cursor

    def fail(self: Bucket, key: str) -> bytes:
        raise BucketError("down")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "get_bytes", fail)
        with pytest.raises(BucketError, match="down"):
            daemon.tick()
    assert daemon.cursor == before
    assert len(daemon.tick()) == 1


def test_the_sensor_runs_by_default_and_takes_a_job_or_its_name() -> None:
    for job in (JOB, "main"):
        sensor = incoming_sensor(job)
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert sensor.job_name == "main"
        assert "metadata file last" in (sensor.description or "")
