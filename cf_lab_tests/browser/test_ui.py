"""The Dagster UI of `cf-lab up`, as a person sees it in a browser."""

import pytest

from cf_lab_assets.definitions import defs
from cf_lab_assets.releases.gates import GATES
from cf_lab_tests.running import eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

GROUPS = sorted({spec.group_name for spec in defs.resolve_all_asset_specs()})
RUNS = """{ runsOrError(limit: 20) { ... on Runs { results {
    runId status assetSelection { path } } } } }"""


def test_the_asset_graph_shows_every_group(page):
    page.goto("/asset-groups")
    for group in GROUPS:
        page.get_by_text(group, exact=True).first.wait_for()


def test_the_dataset_shows_its_contact_sheet(page):
    page.goto("/assets/counterfactuals/dataset")
    page.get_by_text("content hash").first.wait_for()
    page.get_by_text("Show Markdown").click()
    sheet = page.locator("img[src^='data:image']")
    sheet.wait_for()
    width, shown = sheet.evaluate("picture => [picture.naturalWidth, picture.clientWidth]")
    assert width > 400
    assert shown > 400


def test_the_candidate_shows_its_gates(page):
    page.goto("/assets/releases/candidate?view=checks")
    for gate in GATES:
        page.get_by_text(gate.name, exact=True).first.wait_for()
    page.get_by_text(GATES[0].name, exact=True).first.click()
    page.get_by_text("limit_from").first.wait_for()


def artifact_runs(lab):
    runs = lab.graphql(RUNS)["runsOrError"]["results"]
    selected = [{"path": ["models", "artifacts"]}]
    return [run for run in runs if run["assetSelection"] == selected]


def test_an_asset_is_materialised_from_its_page(page, lab):
    assert artifact_runs(lab) == []
    page.goto("/assets/models/artifacts")
    page.get_by_role("button", name="Materialize").first.click()
    assert eventually(lambda: artifact_runs(lab), 60)
    assert eventually(lambda: artifact_runs(lab)[0]["status"] in ("SUCCESS", "FAILURE"), 120)
    run = artifact_runs(lab)[0]
    assert run["status"] == "SUCCESS"
    page.goto(f"/runs/{run['runId']}")
    page.get_by_text("RUN_SUCCESS").first.wait_for()
