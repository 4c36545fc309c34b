"""What is away for a moment is tried again; what was refused is not, by no mechanism of Dagster."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy.engine import make_url

from cf_lab_assets.conditions import CONDITIONS
from cf_lab_assets.definitions import build_defs
from cf_lab_assets.failures import failure
from cf_lab_assets.instance import INSTANCE_YAML
from cf_lab_assets.names import SOURCE_PAIRS
from cf_lab_assets.releases.candidate import ReleaseError
from cf_lab_assets.sources import assets as sources
from cf_lab_resources.bucket import BucketKeyError, BucketUnavailable, open_bucket
from cf_lab_resources.cache import CacheError, open_cache
from cf_lab_resources.catalog import CatalogError, CatalogUnavailable, migrate
from cf_lab_resources.dagster import BucketResource, CacheResource, CatalogResource
from cf_lab_resources.embedded.servers import HOST
from cf_lab_resources.engine.model_sources import ModelUnavailable
from cf_lab_tests.sources.conftest import make_delivery

ROOT = Path(__file__).resolve().parent.parent
INSTANCES = {
    "cf-lab up": INSTANCE_YAML,
    "laptop": (ROOT / "dagster.yaml").read_text(),
    "deployed": (ROOT / "deploy" / "dagster.yaml").read_text(),
}


class Door:
    """A port that leads to a server, except for those who come first."""

    def __init__(self, server, turned_away):
        self._server, self._turned_away = server, turned_away
        self._listening = socket.create_server((HOST, 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):  # that it was closed
            while True:
                inside, _ = self._listening.accept()
                if self._turned_away:
                    self._turned_away -= 1
                    inside.close()
                    continue
                outside = socket.create_connection(self._server)
                for pair in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(source, target):
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def through_a_door(postgres_url):
    """URL of a Postgres that turns the first two connections away, as one that starts does."""
    migrate(postgres_url)
    address = make_url(postgres_url)
    door = Door((address.host, address.port), turned_away=2)
    yield address.set(host=HOST, port=door.port).render_as_string(hide_password=False)
    door.close()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def retries(result):
    return [one for one in result.all_events if one.event_type_value == "STEP_UP_FOR_RETRY"]


def failed_because(result):
    (event,) = [one for one in result.all_events if one.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_a_step_tries_again_while_postgres_is_away_and_not_once_it_is_refused(
    through_a_door, redis_url, tmp_path, instance
):
    definitions = build_defs(
        {
            "bucket": BucketResource(url=f"file://{tmp_path}/bucket"),
            "catalog": CatalogResource(url=through_a_door),
            "cache": CacheResource(url=redis_url),
        }
    )
    job = definitions.resolve_job_def("roll_back")
    done = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not done.success
    tried_again = retries(done)
    assert 1 <= len(tried_again) <= 2
    for event in tried_again:
        assert "does not answer" in str(event.event_specific_data.error)
    assert "does not answer" not in failed_because(done), "there is no release to go back to"


def test_a_check_tries_again_while_postgres_is_away(through_a_door, tmp_path, instance):
    definitions = build_defs(
        {
            "bucket": BucketResource(url=f"file://{tmp_path}/bucket"),
            "catalog": CatalogResource(url=through_a_door),
        }
    )
    job = definitions.resolve_job_def("verify_release")
    done = job.execute_in_process(instance=instance, raise_on_error=False)
    assert done.success
    assert retries(done)
    (judged,) = done.get_asset_check_evaluations()
    assert judged.description == "no release is current"


def take_in_broken(tmp_path, instance):
    """A run on a delivery that is refused."""
    folder = make_delivery(tmp_path / "bucket" / "incoming" / "spring")
    (folder / "metadata.csv").write_text("wrong,columns\n")
    instance.add_dynamic_partitions("source_batches", ["spring"])
    return dg.materialize(
        [sources.pairs],
        instance=instance,
        partition_key="spring",
        resources={"bucket": BucketResource(url=f"file://{tmp_path}/bucket")},
        raise_on_error=False,
    )


def test_a_refused_delivery_is_not_tried_again(tmp_path, instance):
    done = take_in_broken(tmp_path, instance)
    assert "column" in failed_because(done)
    assert retries(done) == []


def test_a_blocking_check_that_fails_is_not_tried_again(instance):
    attempts = []

    @dg.asset(
        check_specs=[dg.AssetCheckSpec("gate", asset="gated", blocking=True)],
        retry_policy=sources.RETRIES,
    )
    def gated() -> dg.MaterializeResult:
        attempts.append(1)
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])

    done = dg.materialize([gated], instance=instance, raise_on_error=False)
    assert not done.success
    assert (len(attempts), retries(done)) == (1, []), "a gate's verdict stands"


@pytest.mark.parametrize("instance_yaml", INSTANCES.values(), ids=INSTANCES)
def test_a_run_is_begun_anew_where_its_process_was_lost_and_never_for_a_refusal(
    tmp_path, memory_folder, instance_yaml
):
    settings = {"run_retries": yaml.safe_load(instance_yaml)["run_retries"]}
    with dg.DagsterInstance.ephemeral(settings=settings) as instance:
        refused = instance.get_run_by_id(take_in_broken(tmp_path, instance).run_id)
        lost = instance.create_run_for_job(build_defs().resolve_job_def("verify_models"))
        instance.report_run_failed(lost, "its process is gone")
        lost = instance.get_run_by_id(lost.run_id)
    decided = [run.tags["dagster/will_retry"] for run in (refused, lost)]
    assert decided == ["false", "true"]


def test_what_can_not_be_reached_passes_and_what_is_not_there_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(BucketUnavailable) as silent:
        open_bucket("s3://lab").get_bytes("anything")
    assert failure(silent.value).allow_retries
    with pytest.raises(CacheError) as away, open_cache(f"redis://{HOST}:9") as cache:
        cache.ping()
    assert failure(away.value).allow_retries
    with pytest.raises(BucketKeyError) as missing:
        open_bucket(f"file://{tmp_path}").get_bytes("nothing")
    assert not failure(missing.value).allow_retries


@pytest.mark.parametrize(
    ("cause", "again"),
    [
        (CatalogUnavailable("away"), True),
        (BucketUnavailable("away"), True),
        (CatalogError("no such release"), False),
        (ReleaseError("nothing to stage"), False),
        (None, False),
    ],
)
def test_an_error_passes_if_what_it_was_raised_from_does(cause, again):
    with pytest.raises(ModelUnavailable) as raised:
        raise ModelUnavailable("its files can't be had") from cause
    assert failure(raised.value).allow_retries is again


def test_every_step_that_the_daemon_asks_for_tries_again():
    graph = build_defs().resolve_asset_graph()
    for key in [SOURCE_PAIRS, *CONDITIONS]:
        assert graph.get(key).assets_def.op.retry_policy == sources.RETRIES, key
    for key in graph.get_check_keys_for_assets({*CONDITIONS}):
        assert graph.assets_def_for_key(key).op.retry_policy == sources.RETRIES, key
