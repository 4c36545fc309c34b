"""A fresh lab served by `cf-lab up`, a person who works in its UI, and the release they make.

Photographs of all stations go to the folder that CF_LAB_TEST_SCREENSHOTS names, or to pytest's
temporary one.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cf_lab_assets import automation
from cf_lab_assets.releases.gates import QUALITY_IS_ABOVE_FLOOR
from cf_lab_resources import embedded
from cf_lab_resources.settings import Settings
from cf_lab_tests.browser.person import Person
from cf_lab_tests.running import CF_LAB, environment, up

PORTRAITS = 6
FIRST_BATCH = "portraits"
PATIENCE = 60_000  # ms; a busy machine draws the asset graph in twenty seconds
# The sandbox needs rights that root in a container lacks, /dev/shm is small there.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def deliver(home, folder, batch, count, seed):
    """Have some portraits drawn and taken in as a source batch."""
    for arguments in (
        ["sample", str(folder), "--count", str(count), "--seed", str(seed)],
        ["ingest", str(folder), "--batch", batch],
    ):
        done = subprocess.run(
            [CF_LAB, *arguments],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium here; Debian's is `apt-get install chromium`")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def album(tmp_path_factory):
    """The folder for photographs of the UI."""
    kept = os.environ.get("CF_LAB_TEST_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab(chromium, memory_folder, tmp_path_factory):
    """A running lab into which one batch was ingested, and of which nothing was made."""
    home = memory_folder / "ui"
    deliver(home, tmp_path_factory.mktemp("ui") / "portraits", FIRST_BATCH, PORTRAITS, seed=5)
    with up(home) as running:
        yield running
    embedded.stop(Settings(home=home))


@pytest.fixture(scope="session")
def api(lab):
    """A client of the lab's lookup API."""
    with httpx.Client(base_url=lab.api, trust_env=False, timeout=30) as client:
        yield client


@dataclass(frozen=True)
class Released:
    """The first release, as somebody saw it come who made it by clicks.

    Attributes:
        release: as the API served it.
        made: how many runs the person launched.
        succeeded: how many the UI said had succeeded.
        gates: what the UI showed of each gate, by name.
        pairs: the rows of its pairs, by id.
        served: what the API answered for each of them.
    """

    release: dict
    made: int
    succeeded: int
    gates: dict
    pairs: dict
    served: dict


@pytest.fixture(scope="session")
def released(chromium, lab, api, album):
    """Somebody makes a release of the batch by hand, with automation switched off."""
    with person_before(chromium, lab, album) as person:
        person.switch_off("follow_upstream")
        person.photograph("1-automation-is-off")
        person.make_dataset(FIRST_BATCH)
        person.watch(person.run_job(automation.PUBLISH))
        person.photograph("2-a-release-is-published")
        succeeded = person.count_runs("Success")
        person.photograph("3-all-runs-succeeded")
        gates = person.look_at_gates({"4-a-gate-is-green": QUALITY_IS_ABOVE_FLOOR})
    release = api.get("/v1/releases/current").raise_for_status()
    pairs = {row["pair_id"]: row for row in lab.pairs(release.json()["dataset_hash"])}
    served = {pair_id: api.get(f"/v1/pairs/{pair_id}") for pair_id in pairs}
    return Released(release.json(), len(lab.runs()), succeeded, gates, pairs, served)


@contextmanager
def person_before(chromium, lab, album):
    """Somebody before a page that fails for what it asks of other machines and errors it logs."""
    wrong = []
    page = chromium.new_page(base_url=lab.ui, viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: wrong.extend(elsewhere(request.url)))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    try:
        yield Person(page, lab, album)
    finally:
        page.screenshot(path=album / "left-behind.png")
        page.close()
    assert wrong == []


@pytest.fixture
def person(chromium, lab, album):
    with person_before(chromium, lab, album) as somebody:
        yield somebody


def elsewhere(url):
    """The URL where it leaves this machine."""
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
    return [] if local else [url]
