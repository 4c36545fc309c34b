"""The Dagster UI of `cf-lab up`, as a person sees it in a browser."""

import pytest

from cf_lab_assets import names
from cf_lab_assets.definitions import defs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(3600)]

GROUPS = sorted({spec.group_name for spec in defs.resolve_all_asset_specs()})


def test_the_asset_graph_shows_every_group(person):
    person.page.goto("/asset-groups")
    for group in GROUPS:
        person.page.get_by_text(group, exact=True).first.wait_for()


def test_the_dataset_shows_its_contact_sheet(person, released):
    person.page.goto("/assets/counterfactuals/dataset")
    person.page.get_by_text("content hash").first.wait_for()
    person.page.get_by_text("Show Markdown").click()
    sheet = person.page.locator("img[src^='data:image']")
    sheet.wait_for()
    width, shown = sheet.evaluate("picture => [picture.naturalWidth, picture.clientWidth]")
    assert width > 400
    assert shown > 400


def test_an_asset_is_materialised_from_its_page(person, lab):
    run_id = person.materialise(*names.MODEL_ARTIFACTS.path)
    person.watch(run_id)
    (run,) = [one for one in lab.runs() if one["runId"] == run_id]
    assert run["assetSelection"] == [{"path": names.MODEL_ARTIFACTS.path}]
