"""The ``cf-lab`` command: what people do with the lab outside the Dagster UI.

Commands open what they need and call the functions that assets call. Heavy imports stay inside
commands, so that ``cf-lab --help`` answers at once.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cf_lab_resources.errors import LabError
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog
    from cf_lab_resources.embedded import Endpoints

app = typer.Typer(
    help="Makes counterfactual image-text sets, audits models with them, releases both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
release_app = typer.Typer(help="Look at releases, and roll back.", no_args_is_help=True)
services_app = typer.Typer(help="The embedded Postgres and Redis.", no_args_is_help=True)
backup_app = typer.Typer(help="Make and list backups.", no_args_is_help=True)
keys_app = typer.Typer(help="Keys of the lookup API.", no_args_is_help=True)
starter_app = typer.Typer(help="The starter world's models.", no_args_is_help=True)
app.add_typer(release_app, name="release")
app.add_typer(services_app, name="services")
app.add_typer(backup_app, name="backup")
app.add_typer(keys_app, name="keys")
app.add_typer(starter_app, name="starter")

DEMO_BATCH = "demo"
DEMO_PORTRAITS = 24


@dataclass(frozen=True)
class Lab:
    """The stores that a command works on."""

    settings: Settings
    endpoints: Endpoints
    bucket: Bucket
    catalog: Catalog

    @cached_property
    def cache(self) -> Cache:
        """Redis, which few commands need."""
        from cf_lab_resources.cache import open_cache

        return open_cache(self.endpoints.redis_url)


@contextmanager
def opened(migrated: bool = True) -> Iterator[Lab]:
    """Settings, running services and open stores.

    Args:
        migrated: bring the schema up to date first, which takes longer than a rollback may.
    """
    from cf_lab_resources import embedded
    from cf_lab_resources.bucket import open_bucket
    from cf_lab_resources.catalog import migrate, open_catalog

    settings = Settings.from_env()
    with embedded.running(settings) as endpoints:
        os.environ.update(endpoints.environ())
        if migrated:
            migrate(endpoints.postgres_url)
        yield Lab(
            settings,
            endpoints,
            open_bucket(endpoints.bucket_url),
            open_catalog(endpoints.postgres_url),
        )


def say(line: str) -> None:
    """A line of progress, on standard error; results go to standard output."""
    print(line, file=sys.stderr, flush=True)


@app.command()
def ingest(
    path: Annotated[
        Path,
        typer.Argument(
            help="ImageFolder, tar shards, Parquet files, Hugging Face dataset or caption set: a "
            "folder, or one .tar, .parquet or .jsonl file."
        ),
    ],
    batch: Annotated[str | None, typer.Option(help="Name of the batch; the path's.")] = None,
) -> None:
    """Take pictures and captions, or captions alone, in as a source batch."""
    with opened() as lab:
        print(_ingest(lab, path, batch))


def _ingest(lab: Lab, path: Path, batch: str | None) -> str:
    from cf_lab_assets.instance import is_there, offer, open_instance
    from cf_lab_assets.sources.captions import starter_rules
    from cf_lab_assets.sources.ingest import ingest as take_in

    rules = starter_rules()
    with counted_rows(f"taking {path.name} in") as progress:
        result = take_in(
            path,
            batch,
            lab.bucket,
            rules.known_attributes,
            max_tokens=rules.max_tokens,
            count_tokens=rules.count_tokens,
            limits=rules.limits,
            progress=progress,
        )
    if is_there(lab.settings):  # Else `up` or `run` offers the batch when it makes one.
        with open_instance(lab.settings, lab.endpoints) as instance:
            offer(instance, [result.batch])
    return result.summary()


@contextmanager
def counted_rows(what: str) -> Iterator[Callable[[int], None]]:
    """Shows how many rows are done, on standard error and only where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.completed:,} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(what, total=None, rate="")

        def done(rows: int) -> None:
            elapsed = shown.tasks[task].elapsed
            rate = f"{rows / elapsed:,.0f}/s" if elapsed else ""
            shown.update(task, completed=rows, rate=rate)

        yield done


@app.command()
def run(
    plan: Annotated[
        Path | None, typer.Option(help="YAML file: attributes to vary, and a target to sample for.")
    ] = None,
) -> None:
    """Bring the current release up to date with all ingested batches."""
    from cf_lab_assets.counterfactuals.config import read_plan_file

    config = read_plan_file(plan) if plan else None
    with opened() as lab:
        _run(lab, config)


def _run(lab: Lab, plan: dict[str, Any] | None = None) -> str:
    from cf_lab_assets import pipeline
    from cf_lab_assets.definitions import build_defs
    from cf_lab_assets.instance import open_instance

    definitions = build_defs()
    with open_instance(lab.settings, lab.endpoints) as instance:
        outcome = pipeline.run(definitions, instance, lab.bucket, lab.catalog, say, plan)
    done = "is current" if outcome.changed else "is current, nothing to do"
    print(f"release {outcome.release_id} {done}")
    return outcome.release_id


@app.command()
def demo() -> None:
    """Run the whole lab on starter portraits: from pictures to a release and a lookup."""
    from cf_lab_assets.starter.portraits import write_image_folder

    with opened() as lab:
        folder = lab.settings.home / "demo" / "portraits"
        if not (folder / "metadata.csv").exists():
            write_image_folder(folder, DEMO_PORTRAITS, seed=2026)
        say(_ingest(lab, folder, DEMO_BATCH))
        release_id = _run(lab)
        _show_lookup(lab, release_id)
        _show_results(lab, release_id)


def _show_lookup(lab: Lab, release_id: str) -> None:
    """Start the API, ask it for one pair over HTTP, and stop it."""
    from cf_lab_assets.servers import fetch, free_port, lookup_api

    pair_id = lab.catalog.first_pair_id(release_id)
    with lookup_api(lab.settings, lab.endpoints, free_port()) as address:
        record = json.loads(fetch(f"{address}/v1/pairs/{pair_id}"))
    print(f"lookup of {pair_id}: {record['caption']} (cits {record['cits']:.2f})")


def _show_results(lab: Lab, release_id: str) -> None:
    from cf_lab_assets.releases.candidate import result_files

    out = lab.settings.home / "releases" / release_id
    sheet, report = result_files(lab.bucket, lab.catalog, release_id, out)
    print(f"release        {release_id}")
    print(f"contact sheet  {sheet}")
    print(f"bias report    {report}")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Where to write; must not exist yet.")],
    count: Annotated[int, typer.Option(min=1, help="How many portraits.")] = DEMO_PORTRAITS,
    seed: Annotated[int, typer.Option(help="Another seed, other portraits.")] = 0,
) -> None:
    """Write starter portraits as a folder that ``ingest`` takes."""
    from cf_lab_assets.starter.portraits import write_image_folder

    write_image_folder(folder, count, seed)
    print(f"{count} portraits in {folder}")


@app.command("rewrite")
def rewrite_captions(
    attribute: Annotated[
        list[str], typer.Option(help="Attributes, by comma or repeated; several are intersected.")
    ],
    to: Annotated[
        list[str] | None, typer.Option(help="Values to rewrite to, by comma; all of them.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="Of insertions: adjective, or relative ('a woman who is a doctor').")
    ] = "adjective",
    taxonomy: Annotated[
        Path | None, typer.Option(help="Your own file, laid over the lab's; CF_LAB_TAXONOMY.")
    ] = None,
) -> None:
    """Rewrite captions from standard input, lines or JSON lines, to JSON lines."""
    from cf_lab_assets.counterfactuals.caption_lines import read_lines, rewrite_lines, targets
    from cf_lab_assets.counterfactuals.rewrite import TEMPLATES, Rewriter
    from cf_lab_assets.counterfactuals.taxonomy import default_taxonomy, load_taxonomy

    if template not in TEMPLATES:
        raise LabError(f"--template {template!r}: use one of {', '.join(TEMPLATES)}")
    words = load_taxonomy(taxonomy) if taxonomy else default_taxonomy()
    wanted = targets(words, _by_comma(attribute), _by_comma(to or []))
    rewriter = Rewriter(words, template)
    for line in rewrite_lines(read_lines(sys.stdin.buffer), rewriter, wanted):
        sys.stdout.buffer.write(line + b"\n")


def _by_comma(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


@app.command()
def audit(
    table: Annotated[
        Path, typer.Argument(help="CSV or Parquet: set_id, attributes, score and/or prediction.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the metrics and the report.")],
    model: Annotated[str, typer.Option(help="Name of the audited model.")] = "model",
    attributes: Annotated[
        list[str] | None, typer.Option(help="Attribute columns, by comma; all others if left out.")
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="The word of prediction that counts as selected.")
    ] = None,
    abstained: Annotated[
        list[str] | None, typer.Option(help="Words of prediction that decline to answer, by comma.")
    ] = None,
    declaration: Annotated[
        Path | None, typer.Option(help="JSON file: primary endpoints, alpha, minimum_sets, ...")
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, help="K of the ranking metrics.")] = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Largest effect that is tolerated, either way; above 0."),
    ] = None,
    about: Annotated[
        Path | None, typer.Option(help="JSON file: purpose, model, data, who set the thresholds.")
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier report.json of this model; repeated, oldest first."),
    ] = None,
) -> None:
    """Audit any model's scores of counterfactual sets, without pictures or services."""
    from cf_lab_assets.audits import table_audit
    from cf_lab_assets.audits.about import About, read_about
    from cf_lab_assets.audits.sentences import headlines
    from cf_lab_assets.audits.signature import read_report
    from cf_lab_assets.audits.table import Words
    from cf_lab_resources.credentials.home_key import signing_key

    reporting = table_audit.Reporting(
        signing_key(Settings.from_env()),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        read_about(about) if about else About(),
        [read_report(path) for path in earlier or []],
    )
    words = Words(positive, tuple(_by_comma(abstained or [])))
    choices = table_audit.Choices(model, _by_comma(attributes or []), words, declaration, k, limit)
    document, read = table_audit.audit_table(table, choices)
    for reason, count in read.reasons.items():
        say(f"rejected {count} of {read.delivered} rows: {reason}")
    for note in document["notes"]:
        say(note)
    files = table_audit.report_files(document, read, reporting)
    if reporting.key.is_test:
        say("the report is signed with a TEST key; see CF_LAB_C2PA_KEY in the README")
    for line in headlines(document):
        print(line["sentence"])
    for path in table_audit.write(out, document, read, files):
        print(path)


@app.command()
def verify_report(
    file: Annotated[Path, typer.Argument(help="report.json, or a file that lies beside it.")],
    trust: Annotated[
        Path | None, typer.Option(help="PEM certificates to trust; without any, none are.")
    ] = None,
) -> None:
    """Verify a report's signature and the files beside it; exit code 1 where one is broken."""
    from cf_lab_assets.audits import signature
    from cf_lab_resources.credentials.keys import read_anchors

    found = signature.verify(file, None if trust is None else read_anchors(trust))
    for fault in found.faults:
        say(fault)
    if found.faults:
        print(f"broken: {file}")
        raise typer.Exit(1)
    print(f"intact, {'trusted' if found.trusted else 'untrusted'}: {file}")
    print(f"signed by {found.signer}{' (a TEST key)' if found.is_test else ''}")
    print(f"certificate {found.certificate}")
    print(f"verified with it: {', '.join(found.verified) or 'no other file'}")
    if found.missing:
        print(f"signed and not here: {', '.join(found.missing)}")


@app.command()
def lookup(
    pair_id: Annotated[str, typer.Argument(help="A pair's or a set's id.")],
) -> None:
    """Print the record of a pair or a set of the current release."""
    with opened() as lab:
        current = lab.catalog.current_release()
        if current is None:
            raise LabError("no release is current yet; make one with `cf-lab run`")
        record = lab.catalog.pair(current.release_id, pair_id) or lab.catalog.set(
            current.release_id, pair_id
        )
        if record is None:
            raise LabError(f"{pair_id!r} is no pair or set of release {current.release_id}")
        print(json.dumps(json.loads(record), indent=1))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write; must not hold anything yet.")],
    release: Annotated[str | None, typer.Option(help="A release id; the current one.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A dataset's hash, released or not.")] = None,
) -> None:
    """Write a released dataset as a folder for datasets, webdataset and mlcroissant."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from cf_lab_assets.counterfactuals.packaging.export import (
        check_free,
        choose_package,
        export_package,
    )

    if release and dataset:
        raise LabError("name a release or a dataset, not both")
    check_free(folder)
    with opened() as lab:
        package = choose_package(lab.bucket, lab.catalog, release, dataset)
        with Progress(
            TextColumn("exporting"), BarColumn(), DownloadColumn(), console=_errors()
        ) as progress:
            files = package.manifest["files"]
            task = progress.add_task("files", total=sum(file["bytes"] for file in files))
            export_package(lab.bucket, package, folder, lambda done: progress.advance(task, done))
    manifest = package.manifest
    if manifest["test_key"]:
        say("pictures are signed with a TEST key; see CF_LAB_C2PA_KEY in the README")
    print(f"{manifest['pairs']} pairs in {manifest['sets']} sets: {folder}")


@app.command()
def verify_images(
    folder: Annotated[Path, typer.Argument(help="An exported package, or a folder of pictures.")],
    trust: Annotated[
        Path | None,
        typer.Option(help="PEM certificates to trust; of a package, none."),
    ] = None,
) -> None:
    """Verify the Content Credentials of pictures; exit code 1 where something is broken."""
    from cf_lab_assets.counterfactuals.packaging.inspection import table, verify_folder
    from cf_lab_resources.credentials.keys import read_anchors

    found = verify_folder(folder, None if trust is None else [read_anchors(trust)])
    print(table(found))
    for fault in found.faults:
        say(fault)
    if found.faults:
        raise typer.Exit(1)


@app.command()
def verify_models() -> None:
    """Hash every file of every model in use anew; exit code 1 where one is damaged."""
    from rich.console import Console

    from cf_lab_assets.models import inspection
    from cf_lab_resources.bucket import open_bucket

    verified = inspection.verify(open_bucket(Settings.from_env().bucket))
    # Hashes are to be copied: where no terminal is, nothing bounds a line.
    console = Console() if sys.stdout.isatty() else Console(width=inspection.UNBOUNDED)
    console.print(inspection.table(verified))
    damaged = [line for one in verified for line in one.damaged]
    for line in damaged:
        say(line)
    if damaged:
        raise typer.Exit(1)


def _errors() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 8000,
) -> None:
    """Run the Dagster UI, its daemon and the lookup API until Ctrl-C."""
    from cf_lab_assets.servers import check_ports, run_until_interrupted

    check_ports({"--port": port, "--api-port": api_port})
    with opened() as lab:
        run_until_interrupted(lab.settings, lab.endpoints, port, api_port)


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="A revision, head or base.")] = "head",
) -> None:
    """Bring the catalog's schema to a revision, forwards or backwards."""
    from cf_lab_resources import embedded
    from cf_lab_resources.catalog import migrate as migrate_catalog

    with embedded.running(Settings.from_env()) as endpoints:
        migrate_catalog(endpoints.postgres_url, revision)
        print(f"schema is at {revision}")


@services_app.command("status")
def services_status() -> None:
    """Say which services run, and where."""
    from cf_lab_resources import embedded

    for service in embedded.status(Settings.from_env()):
        process = f"process {service.pid}" if service.pid else ""
        print(f"{service.name:<9} {service.state:<9} {service.address or ''} {process}".rstrip())


@services_app.command("run")
def services_run() -> None:
    """Keep the services up until Ctrl-C."""
    import signal

    # Blocked first: a signal that comes while the services start is kept for sigwait.
    awaited = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    with opened():
        services_status()
        signal.sigwait(awaited)


@services_app.command("stop")
def services_stop() -> None:
    """Stop them, also for those who use them now."""
    from cf_lab_resources import embedded

    embedded.stop(Settings.from_env())
    services_status()


@release_app.command("list")
def release_list() -> None:
    """All releases, newest first."""
    with opened() as lab:
        for release in lab.catalog.list_releases():
            dropped = "  records dropped" if release.dropped_at else ""
            made = f"{release.created_at:%Y-%m-%d %H:%M}"
            print(f"{release.release_id}  {release.state:<10}  {made}{dropped}")


@release_app.command("show")
def release_show(
    release_id: Annotated[str | None, typer.Argument(help="The current one if left out.")] = None,
) -> None:
    """One release's manifest."""
    with opened() as lab:
        found = lab.catalog.get_release(release_id) if release_id else lab.catalog.current_release()
        if found is None:
            missing = f"release {release_id}" if release_id else "current release"
            raise LabError(f"there is no {missing}; see `cf-lab release list`")
        print(json.dumps(asdict(found), indent=1, default=str))


@release_app.command("rollback")
def release_rollback(
    to: Annotated[str | None, typer.Option(help="A release id; the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the release's events.")] = "",
) -> None:
    """Make an earlier release current again and withdraw the current one."""
    with opened(migrated=False) as lab:
        flip = lab.catalog.roll_back(to, reason=reason)
        print(f"release {flip.release_id} is current", flush=True)
        # Redis' client takes longer to import than all of this.
        from cf_lab_assets.releases.pointer import follow

        moved = follow(lab.catalog, lab.cache, flip)
        if moved.cache_error:
            say(f"the cache was not brought up to date: {moved.cache_error}")


@release_app.command("waive")
def release_waive(
    gate: Annotated[str, typer.Argument(help="A gate that may be waived.")],
    by: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    until: Annotated[
        datetime.datetime, typer.Option(formats=["%Y-%m-%d"], help="The last day, UTC.")
    ],
) -> None:
    """Let releases through for a while although a gate fails; the report shows it."""
    from cf_lab_assets.releases.waivers import grant

    with opened() as lab:
        waiver = grant(lab.catalog, gate, by, reason, until.date())
        print(f"waiver {waiver.waiver_id}: {gate} may fail until {waiver.until}, by {by}")
        print("it counts once audits/bias_report, then releases/candidate are materialised anew")


@release_app.command("unwaive")
def release_unwaive(waiver_id: Annotated[int, typer.Argument(help="Its number.")]) -> None:
    """Take a waiver back."""
    with opened() as lab:
        lab.catalog.migrate()
        waiver = lab.catalog.revoke_waiver(waiver_id)
        print(f"waiver {waiver.waiver_id} of {waiver.gate} no longer counts")


@release_app.command("waivers")
def release_waivers() -> None:
    """All waivers ever given."""
    with opened() as lab:
        lab.catalog.migrate()
        for one in lab.catalog.waivers():
            state = f"taken back {one.revoked_at:%Y-%m-%d}" if one.revoked_at else "stands"
            print(f"{one.waiver_id}  {one.gate}  until {one.until}  {state}")
            print(f"   {one.person}: {one.reason}")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="Whose it is, or what for.")],
    scope: Annotated[list[str], typer.Option(help="What it opens: shadow. May be repeated.")],
    days: Annotated[int, typer.Option(help="How long it lasts.")] = 90,
) -> None:
    """Make a key and show it, this once."""
    from cf_lab_resources.api.access import make_key, read_secret
    from cf_lab_resources.catalog.api_keys import ApiKeys

    with opened() as lab, ApiKeys(lab.endpoints.postgres_url) as keys:
        key, row = make_key(keys, read_secret(lab.settings.api_secret), name, scope, days)
    say(f"key {row.key_id} of {row.name} lasts until {row.expires_at:%Y-%m-%d}; it is shown once:")
    print(key)


@keys_app.command("list")
def keys_list() -> None:
    """All keys ever made."""
    from cf_lab_resources.catalog.api_keys import ApiKeys

    with opened() as lab, ApiKeys(lab.endpoints.postgres_url) as keys:
        now = datetime.datetime.now(datetime.UTC)
        for one in keys.all():
            until = f"{one.expires_at:%Y-%m-%d}"
            print(f"{one.key_id}  {one.state(now)}  until {until}  {','.join(one.scopes)}")
            print(f"   {one.name}")


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="Its first eight digits.")]) -> None:
    """Take a key back; it opens nothing within seconds."""
    from cf_lab_resources.catalog.api_keys import ApiKeys

    with opened() as lab, ApiKeys(lab.endpoints.postgres_url) as keys:
        print(f"key {keys.revoke(key_id).key_id} is revoked")


@backup_app.command("now")
def backup_now() -> None:
    """Back catalog and bucket up."""
    from cf_lab_assets import automation, pipeline
    from cf_lab_assets.definitions import build_defs
    from cf_lab_assets.instance import open_instance

    with opened() as lab, open_instance(lab.settings, lab.endpoints) as instance:
        pipeline.execute(build_defs(), instance, automation.BACK_UP, say)
    backup_list()


@backup_app.command("list")
def backup_list() -> None:
    """All backups, newest first."""
    from cf_lab_assets.backups.manifest import list_backups
    from cf_lab_resources.bucket import open_bucket

    for listed in list_backups(open_bucket(Settings.from_env().backup)):
        objects = listed.backup.manifest.objects if listed.backup else None
        content = f"{objects.count} objects, {objects.bytes:,} bytes" if objects else listed.problem
        print(f"{listed.created_at:%Y-%m-%dT%H:%M:%SZ}  {content}")


@app.command()
def restore(
    into_postgres: Annotated[str, typer.Option(help="An empty database.")],
    into_bucket: Annotated[str, typer.Option(help="An empty bucket.")],
    source: Annotated[str | None, typer.Option("--from", help="Backup URL; CF_LAB_BACKUP.")] = None,
    at: Annotated[str | None, typer.Option(help="Time of a backup; the newest.")] = None,
) -> None:
    """Restore a backup into an empty database and an empty bucket."""
    from cf_lab_assets.backups.restore import restore as restore_backup

    done = restore_backup(source or Settings.from_env().backup, into_postgres, into_bucket, at=at)
    print(
        f"restored the backup of {done.backup.created_at:%Y-%m-%dT%H:%M:%SZ}: {done.objects} "
        f"objects, {done.rows} rows in {done.tables} tables, each hash verified; "
        f"{done.pictures} released pictures are there"
    )


@starter_app.command("train")
def starter_train(
    small: Annotated[bool, typer.Option(help="A few steps only, to try the way.")] = False,
    into: Annotated[Path | None, typer.Option(help="Folder; the package's own weights.")] = None,
) -> None:
    """Train the starter models from nothing, and write weights and manifest."""
    from cf_lab_assets.starter import factory

    if small and into is None:
        raise LabError("--small makes models that are good for nothing; name a folder by --into")
    factory.train_all(into or factory.WEIGHTS, factory.SMALL if small else factory.FULL, say)


@starter_app.command("evaluate")
def starter_evaluate(
    sources: Annotated[int, typer.Option(min=1, help="Rendered sources of unseen seeds.")] = 300,
    picture: Annotated[Path, typer.Option(help="Where the comparison goes.")] = Path("editor.png"),
) -> None:
    """Measure the editor against the known truth of the starter world."""
    from cf_lab_assets.starter import evaluation

    print(evaluation.evaluate(sources, picture).table())
    print(f"source, output, truth, difference: {picture}")


def main() -> None:
    """Entry point: a `LabError` is one line for people, everything else a traceback."""
    try:
        app()
    except LabError as error:
        print(f"cf-lab: {error}", file=sys.stderr)
        sys.exit(1)
