"""The bias report in a real browser, on a phone and on a desk: of few results and of very many."""

import copy
import dataclasses
import datetime
import json
import re
from pathlib import Path

import pytest

from cf_lab_assets.audits import bundle, data, metrics, report
from cf_lab_resources.credentials.home_key import home_test_key
from cf_lab_tests.audits.synthetic import noisy, responses

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 1000}
MANIFEST = {
    "content_hash": "d" * 64,
    "pairs": 300,
    "sets": 120,
    "batches": {},
    "models": {"editor": {"name": "an-editor", "sha256": "1" * 64}},
}
MANY = 3000


def documents():
    """Two models, the first with very many results and long names."""
    found = [
        metrics.compute(responses(*noisy(40, seed, shift), name=name))
        for seed, shift, name in ((1, 0.0, "balanced"), (2, 0.12, "skewed-" + "long-" * 12))
    ]
    for document in found:
        document["results"][0] |= {"limit": 0.02, "against_limit": "undecided"}
        effect = next(one for one in document["results"] if one["id"].startswith("effect/gender"))
        document["results"] += [
            copy.deepcopy(effect) | {"id": f"effect/{n}", "prompts_plus": [f"occupation {n} " * 4]}
            for n in range(MANY)
        ]
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    made = documents()
    material = report.Material(data.of_dataset(MANIFEST, [], made[0]["counts"]))
    key = home_test_key(folder / "signing")
    first = report.build(made, material, "2026-11-01")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    later = report.build(
        made, dataclasses.replace(material, calibration={"coverage": 0.95}), today, [first]
    )
    for name, content in bundle.files(later, key, today).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(params=[PHONE, DESK], ids=["phone", "desk"])
def shown(request, chromium, files, tmp_path):
    asked = []
    page = chromium.new_page(viewport=request.param)
    page.on("request", lambda one: asked.append(one.url))
    page.goto((files / "report.html").as_uri())
    yield page
    page.screenshot(path=tmp_path / "report.png")
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def width(page):
    return page.evaluate("document.documentElement.scrollWidth")


def test_the_page_does_not_scroll_sideways_folded_or_open(shown):
    wide = shown.viewport_size["width"]
    assert width(shown) == wide
    shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert width(shown) == wide


def test_the_headline_is_the_first_thing_seen(shown):
    line = shown.locator(".headlines li").first
    assert line.is_visible()
    assert line.bounding_box()["y"] < shown.viewport_size["height"]
    assert shown.locator("#findings .chip").first.inner_text() == "found"


def test_every_plot_is_drawn_and_has_words(shown):
    plots = shown.locator("img")
    assert plots.count() > 6
    broken = plots.evaluate_all("all => all.filter(one => !one.naturalWidth || !one.alt).length")
    assert broken == 0


def test_a_long_table_is_bounded_and_says_where_the_rest_is(shown):
    rows = shown.locator("details:has-text('Table of effects:') tbody tr")
    assert rows.count() == 200
    left = shown.locator("#results").inner_text()
    found = re.search(r"the other ([\d,]+) are in results\.csv", shown.content())
    assert found, left
    assert int(found[1].replace(",", "")) > 2 * MANY - 200


def test_words_stand_out_from_what_is_behind_them(shown):
    """Contrast of 4.5 for text, WCAG 2.2, criterion 1.4.3."""
    pairs = shown.locator(".chip, .meta, small, summary, caption, td, p").evaluate_all(
        """all => [...new Set(all.slice(0, 400).map(one => {
            let behind = one;
            while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)')
                behind = behind.parentElement;
            return getComputedStyle(one).color + '|' +
                (behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)');
        }))]"""
    )
    assert len(pairs) > 3
    for pair in pairs:
        ink, paper = (tuple(map(int, re.findall(r"\d+", part)[:3])) for part in pair.split("|"))
        assert contrast(ink, paper) >= 4.5, pair


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_prints_to_pdf(chromium, files):
    page = chromium.new_page()
    page.goto((files / "report.html").as_uri())
    pdf = page.pdf(format="A4")
    page.close()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 60


def test_the_signed_json_beside_it_is_of_the_same_report(files):
    made = json.loads(Path(files / "report.json").read_bytes())
    assert made["report_id"] in (files / "report.html").read_text()
