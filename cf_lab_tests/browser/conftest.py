"""A lab with a current release, served by `cf-lab up`, and a browser that looks at it."""

import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from cf_lab_resources import embedded
from cf_lab_resources.settings import Settings
from cf_lab_tests.running import CF_LAB, environment, up

PORTRAITS = 6
PATIENCE = 60_000  # ms; a busy machine draws the asset graph in twenty seconds
# The sandbox needs rights that root in a container lacks, /dev/shm is small there.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def make_release(home, folder):
    for arguments in (
        ["sample", str(folder), "--count", str(PORTRAITS), "--seed", "5"],
        ["ingest", str(folder), "--batch", "portraits"],
        ["run"],
    ):
        done = subprocess.run(
            [CF_LAB, *arguments],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=600,
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
def lab(chromium, memory_folder, tmp_path_factory):
    home = memory_folder / "ui"
    make_release(home, tmp_path_factory.mktemp("ui") / "portraits")
    with up(home) as running:
        yield running
    embedded.stop(Settings(home=home))


@pytest.fixture
def page(chromium, lab, tmp_path):
    """A page that fails the test for what it asks of other machines and for errors it logs."""
    wrong = []
    opened = chromium.new_page(base_url=lab.ui, viewport={"width": 1440, "height": 1000})
    opened.set_default_timeout(PATIENCE)
    opened.on("request", lambda request: wrong.extend(elsewhere(request.url)))
    opened.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield opened
    opened.screenshot(path=tmp_path / "page.png")
    opened.close()
    assert wrong == []


def elsewhere(url):
    """The URL where it leaves this machine."""
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
    return [] if local else [url]
