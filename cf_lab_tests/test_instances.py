"""The instance files fit the installed Dagster, and the laptop's needs no server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PRODUCTION = {
    "AWS_REGION": "eu-central-1",
    "CF_LAB_IMAGE": "cf-lab:1",
    "CF_LAB_LOG_BUCKET": "logs",
    "CF_LAB_NAMESPACE": "cf-lab",
}


def test_the_laptop_instance_runs_a_job_without_any_server(
    memory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    home = memory_folder / "laptop"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.run_monitoring_enabled

        @dg.asset(pool="gpu")
        def one() -> None:
            pass

        assert dg.materialize([one], instance=instance).success
        assert instance.event_log_storage.get_concurrency_info("gpu").slot_count == 1


def test_the_production_instance_opens_its_postgres(
    postgres_url: str, memory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg
    from sqlalchemy.engine import make_url

    address = make_url(postgres_url)
    for name, value in {
        **PRODUCTION,
        "CF_LAB_PG_HOST": str(address.host),
        "CF_LAB_PG_PORT": str(address.port),
        "CF_LAB_PG_USER": str(address.username),
        "CF_LAB_PG_PASSWORD": str(address.password),
        "CF_LAB_PG_DAGSTER_DB": str(address.database),
    }.items():
        monkeypatch.setenv(name, value)
    config = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    del config["run_launcher"]  # it wants a cluster when it is made, and has its own test below
    home = memory_folder / "production"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
        assert instance.get_runs() == []


def test_the_production_run_launcher_takes_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dagster as dg
    from dagster_k8s import K8sRunLauncher

    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    launcher = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())["run_launcher"]
    assert (launcher["module"], launcher["class"]) == ("dagster_k8s", "K8sRunLauncher")

    @dg.op(config_schema=K8sRunLauncher.config_type())
    def takes_it() -> None:
        pass

    @dg.job
    def check() -> None:
        takes_it()

    config = {"ops": {"takes_it": {"config": launcher["config"]}}}
    resolved = dg.validate_run_config(check, config)["ops"]["takes_it"]["config"]
    assert resolved["job_image"] == "cf-lab:1"
    launcher["config"]["job_imagge"] = "typo"
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(check, config)


def test_no_secret_stands_in_the_instance_files() -> None:
    for path in (ROOT / "dagster.yaml", ROOT / "deploy" / "dagster.yaml"):
        postgres = yaml.safe_load(path.read_text()).get("storage", {}).get("postgres", {})
        for name, value in postgres.get("postgres_db", {}).items():
            assert name == "scheme" or set(value) == {"env"}, name
