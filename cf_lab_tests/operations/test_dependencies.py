"""The dependency report: real metadata, the real lock, and real pip against a small index."""

from __future__ import annotations

import http.server
import importlib.metadata
import os
import threading
import venv

import pytest

from cf_lab_assets.operations import dependencies
from cf_lab_assets.operations.dependencies import Distribution, Versions

PAGES = {
    "/simple/alpha/": ["alpha-1.0-py3-none-any.whl", "alpha-2.0-py3-none-any.whl"],
    "/simple/beta-two/": ["beta_two-1.5-py3-none-any.whl"],
}


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with two projects."""

    def do_GET(self):
        self.server.asked.append(self.path)
        files = PAGES.get(self.path)
        self.send_response(200 if files else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        for file in files or []:
            self.wfile.write(f'<a href="/files/{file}">{file}</a>\n'.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed distributions, and a pip that nothing else configures."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    folder = tmp_path / "site"
    install(folder, "alpha", "1.0", "License-Expression: MIT OR Apache-2.0")
    install(folder, "Beta.Two", "1.5", "Classifier: License :: OSI Approved :: BSD License")
    install(folder, "gamma", "3.0", "License: ISC")
    install(folder, dependencies.OWN_NAME, "0.1.0")
    return folder


def install(folder, name, version, *about):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *about]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def asked_of(index, site, **more):
    url = f"http://127.0.0.1:{index.server_port}/simple"
    return dependencies.newest(options=[f"--path={site}", f"--index-url={url}"], **more)


def test_the_index_is_asked_for_what_is_outdated_and_what_is_not(index, site):
    assert asked_of(index, site) == Versions({"alpha": "2.0", "beta-two": "1.5"})
    assert set(index.asked) == {"/simple/alpha/", "/simple/beta-two/", "/simple/gamma/"}, (
        "the lab's own name is not asked for"
    )


def test_an_index_that_does_not_answer_is_told_and_is_no_failure(index, site):
    index.shutdown()
    index.server_close()
    assert asked_of(index, site).unchecked == "no package index is configured, or none answers"


def test_a_pip_that_takes_too_long_is_given_up(index, site):
    assert asked_of(index, site, seconds=0.01).unchecked == "pip had no answer after 0.01 s"


def test_a_pip_that_fails_is_told(site):
    found = dependencies.newest(options=[f"--path={site}", "--no-such-option"])
    assert found.unchecked == "`pip list --outdated` ended with code 2"


def test_a_python_without_pip_is_told(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    found = dependencies.newest(python=str(tmp_path / "bare" / "bin" / "python"))
    assert found.unchecked == "there is no pip beside this Python"


def test_installed_distributions_are_read_with_their_licence(site):
    assert dependencies.installed([str(site)]) == [
        Distribution("alpha", "1.0", "MIT OR Apache-2.0"),
        Distribution("beta-two", "1.5", "BSD License"),
        Distribution("gamma", "3.0", "ISC"),
        Distribution(dependencies.OWN_NAME, "0.1.0", "unknown"),
    ]


def test_a_whole_licence_in_the_metadata_is_no_name(site, tmp_path):
    install(tmp_path / "long", "delta", "1", "License: Copyright (c) the authors", "        All.")
    (one,) = dependencies.installed([str(tmp_path / "long")])
    assert one.licence == "unknown"


def test_of_two_with_one_name_the_one_that_is_imported_counts(site, tmp_path):
    install(tmp_path / "before", "ALPHA", "0.9")
    found = dependencies.installed([str(tmp_path / "before"), str(site)])
    assert [one.version for one in found if one.name == "alpha"] == ["0.9"]


LOCK = """\
# how it was made
alpha==1.0 ; sys_platform == 'nowhere' \\
    --hash=sha256:00
alpha==1.1 ; sys_platform != 'nowhere' \\
    --hash=sha256:00
Beta.Two==1.5.0 \\
    --hash=sha256:00
"""


def test_a_lock_is_read_for_this_machine(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    assert dependencies.locked(lock) == Versions({"alpha": "1.1", "beta-two": "1.5.0"})


def test_a_lock_that_is_missing_or_damaged_says_so(tmp_path):
    lock = tmp_path / "requirements.lock"
    missing = dependencies.locked(lock)
    assert missing.unchecked == "there is no deploy/requirements.lock beside the package"
    lock.write_text("alpha==1.0\n<<<<<<< == \n")
    assert "a line that is no requirement" in dependencies.locked(lock).unchecked


def test_the_labs_own_lock_names_what_is_installed_here():
    lock = dependencies.locked()
    installed = dependencies.installed()
    assert not lock.unchecked
    assert lock.known["dagster"] == importlib.metadata.version("dagster")
    named = [one for one in installed if one.name in lock.known]
    assert len(named) > 150
    assert dependencies.differing(installed, lock) == []


def test_a_row_says_the_first_thing_that_a_person_should_know(site, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    newest = Versions({"alpha": "2.0", "beta-two": "1.5"})
    installed = dependencies.installed([str(site)])
    alpha, beta, gamma, own = dependencies.report(installed, dependencies.locked(lock), newest)
    assert alpha == {
        "name": "alpha",
        "installed": "1.0",
        "locked": "1.1",
        "licence": "MIT OR Apache-2.0",
        "newest": "2.0",
        "advisories": "not checked",
        "state": dependencies.DIFFERS,
    }
    assert beta["state"] == dependencies.UP_TO_DATE, "1.5 and 1.5.0 are one version"
    assert (gamma["locked"], gamma["newest"]) == ("not in the lock", "the index has none")
    assert gamma["state"] == own["state"] == dependencies.UNLOCKED
    assert dependencies.counts([alpha, beta, gamma, own], "state") == {
        dependencies.UNLOCKED: 2,
        dependencies.DIFFERS: 1,
        dependencies.UP_TO_DATE: 1,
    }


def test_what_could_not_be_checked_stands_in_every_row_with_the_reason(site):
    installed = dependencies.installed([str(site)])
    rows = dependencies.report(installed, Versions(unchecked="no lock"), Versions(unchecked="off"))
    for row in rows:
        assert row["locked"] == "not checked: no lock"
        assert row["newest"] == "not checked: off"
        assert row["state"] == "not checked"
    locked = Versions({"alpha": "1.0"})
    (alpha, *_) = dependencies.report(installed, locked, Versions(unchecked="off"))
    assert alpha["state"] == dependencies.AS_LOCKED
