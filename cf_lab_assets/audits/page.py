"""The report as one self-contained page: plots and pictures inside, no script, no other address.

Tables are bounded, so that a page of any audit opens on a phone: what was found comes first, and
the page says how many more results the CSV and the JSON hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cf_lab_assets.audits import figures, sentences
from cf_lab_assets.audits import results as r
from cf_lab_assets.audits.examples import WORDS
from cf_lab_assets.audits.figures import NUMBERLESS, Figures, data_uri
from cf_lab_assets.audits.results import EFFECT, PRIMARY, STRATUM_EFFECT

MAX_ROWS = 200
# More primary endpoints than this are folded: the first of them, which is what was found, are said.
FEW = 12
RANKINGS = (r.MAX_SKEW, r.MIN_SKEW, r.SKEW, r.BIAS, r.NDKL)
COMPARISONS = (r.WEAT, r.FIRST, r.SET_RANGE, r.TOKEN_FAIRNESS_GAP)
RATES = (r.SELECTION_RATE, r.ACCURACY, r.ABSTENTION, r.SOUNDNESS, r.FLIP_RATE)
DIFFERENCES = (
    r.DEMOGRAPHIC_PARITY,
    r.PARITY_RATIO,
    r.EQUAL_OPPORTUNITY,
    r.EQUALIZED_ODDS,
    r.AVERAGE_ODDS,
    r.SELECTION_GAP,
    r.DISPARATE_IMPACT,
    r.TRUE_POSITIVE_GAP,
    r.FALSE_POSITIVE_GAP,
    r.ACCURACY_GAP,
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of a table of the page, and how many there are in all."""

    rows: Sequence[Row]
    total: int

    @property
    def left_out(self) -> int:
        """How many rows only the CSV and the JSON hold."""
        return self.total - len(self.rows)


def bounded(rows: Sequence[Row]) -> Table:
    """The first of some rows."""
    return Table(rows[:MAX_ROWS], len(rows))


def render(
    report: Mapping[str, Any],
    signer: Mapping[str, Any] | None = None,
    contact_sheet: bytes | None = None,
    pictures: Mapping[str, tuple[bytes, str]] | None = None,
) -> str:
    """The report as one HTML page.

    Args:
        report: of `report.build`.
        signer: of `signature.signer_of`, the key that signs it; None where nothing does.
        contact_sheet: a PNG of sets of the dataset.
        pictures: of `examples.pictures`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cf_lab_assets.audits", package_path="."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "plain": sentences.plain,
        "signed": sentences.signed,
        "p_value": sentences.p_value,
        "words": sentences.words_of,
        "metric": sentences.metric_words,
        "subject": sentences.subject,
        "why": sentences.why_not,
        "told": told,
    }
    body = report["body"]
    return environment.get_template("report.html.j2").render(
        report=report,
        body=body,
        context=report["context"],
        signer=signer,
        models=list(body["results"]),
        verdicts=sentences.VERDICTS,
        against=sentences.AGAINST_LIMIT,
        example_words=WORDS,
        figures=_figures(report),
        tables=tables(body),
        headlines=_headlines(body["headlines"]),
        checked=_checked(body["instrument_checks"]["found"]),
        few=FEW,
        contact_sheet=data_uri(contact_sheet) if contact_sheet else None,
        pictures=[(data_uri(one, "jpeg"), words) for one, words in (pictures or {}).values()],
    )


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    body = report["body"]
    results, attributes = body["results"], list(body["attributes"])
    decided = [one["attribute"] for ones in results.values() for one in ones]

    def each(plot: Callable[[Any, str], Figures | None], names: Sequence[str]) -> list[Figures]:
        return [made for name in names if (made := plot(results, name))]

    return {
        "primary": figures.primary(results),
        "secondary": each(figures.secondary, attributes),
        "skew": each(figures.skew, attributes),
        "selection": each(figures.selection, list(dict.fromkeys(decided))),
        "drift": figures.drift(report["context"]["drift"]),
        "power": figures.power(body["calibration"]["found"] or {}),
    }


def tables(body: Mapping[str, Any]) -> dict[str, Any]:
    """The page's tables of results, each with what was found first."""
    rows = [{"model": model, **one} for model, ones in body["results"].items() for one in ones]
    secondary = [one for one in rows if one["family"] != PRIMARY]
    secondary.sort(key=lambda one: (*figures.rank(one), one["model"], one["id"]))

    def of(metrics: Sequence[str]) -> Table:
        return bounded(
            [
                one
                for one in secondary
                if one["metric"] in metrics and one["verdict"] not in NUMBERLESS
            ]
        )

    numberless = [one for one in rows if one["verdict"] in NUMBERLESS]
    return {
        "primary": bounded(_primary(rows)),
        "side_by_side": _side_by_side(body["results"]),
        "effects": of((EFFECT,)),
        "strata": of((STRATUM_EFFECT,)),
        "rankings": of(RANKINGS),
        "comparisons": of(COMPARISONS),
        "rates": of(RATES),
        "differences": of(DIFFERENCES),
        "numberless": bounded(numberless),
        "impact": bounded(_impact(body)),
    }


def _primary(rows: Sequence[Row]) -> list[Row]:
    """Primary results as they were declared, or, where they are many, what was found first."""
    primary = [one for one in rows if one["family"] == PRIMARY]
    return primary if len(primary) <= FEW else sorted(primary, key=figures.rank)


def _headlines(lines: Sequence[Row]) -> dict[str, Any]:
    """The first headlines of primary endpoints, the others, and those of secondary results.

    A limit that is exceeded comes before everything else.
    """
    primary = [one for one in lines if one["endpoint"] != "secondary"]
    primary.sort(key=lambda one: one["against_limit"] != r.EXCEEDED)
    return {
        "total": len(primary),
        "found": sum(one["verdict"] == r.FOUND for one in primary),
        "exceeded": sum(one["against_limit"] == r.EXCEEDED for one in primary),
        "limited": any(one["against_limit"] for one in primary),
        "first": primary[:FEW],
        "others": primary[FEW:],
        "secondary": [one for one in lines if one["endpoint"] == "secondary"],
    }


def _side_by_side(results: Mapping[str, Sequence[Row]]) -> list[tuple[Row, list[list[Row]]]]:
    """Each primary endpoint with every model's results, in the order of the models.

    A model has one for each format in which it was asked, which may be none.
    """
    by_model = [[one for one in ones if one["family"] == PRIMARY] for ones in results.values()]
    first = {one["endpoint"]: one for ones in reversed(by_model) for one in reversed(ones)}
    return [
        (one, [[own for own in ones if own["endpoint"] == name] for ones in by_model])
        for name, one in list(first.items())[::-1][:MAX_ROWS]
    ]


def _impact(body: Mapping[str, Any]) -> list[Row]:
    """Rows of impact ratios, the lowest ratio first."""
    rows = body["impact_ratios"]["rows"]
    return sorted(rows, key=lambda row: 2.0 if row["impact_ratio"] is None else row["impact_ratio"])


def _checked(document: Any) -> dict[str, Any]:
    """The numbers of the instrument's checks as a table, and how many are of each verdict."""
    found = _findings(document)
    verdicts = [one["verdict"] for one in found]
    return {"table": bounded(found), **{name: verdicts.count(name) for name in ("holds", "fails")}}


def _findings(document: Any) -> list[Row]:
    """Every number in a document that is held against a limit, those that fail first."""
    found: list[Row] = []
    if isinstance(document, Mapping):
        if {"measure", "subject", "verdict"} <= set(document):
            return [document]
        document = list(document.values())
    if isinstance(document, list | tuple):
        for one in document:
            found += _findings(one)
    return sorted(found, key=lambda one: one["verdict"] != "fails")


def told(value: Any) -> str:
    """A value of a document of any form, for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {told(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(told(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
