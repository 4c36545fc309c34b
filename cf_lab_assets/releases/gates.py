"""The gates: what must hold before a release may become current.

Each gate is a pure function of what was staged, and gives what it measured beside its limit. A
gate that can't be measured has failed. Only a store that does not answer is an error: it says
nothing of the release, and the gates are evaluated again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.acceptance import is_change

if TYPE_CHECKING:
    import pyarrow as pa

    from cf_lab_assets.releases.smoke import Smoke
    from cf_lab_resources.catalog import Waiver

# CITS is a logistic function fitted to whether a counterfactual is right: from 0.5 on, right is
# more likely than wrong.
MEDIAN_CITS_FLOOR = 0.5
# With fewer than six values there is no distribution-free 95 % interval of a median at all: the
# widest, from the least to the greatest, covers 1 - 2 * 0.5**n (0.938 for five, 0.969 for six).
MIN_SETS = 6
P95_CEILING = 1.0

SHOWN = 10
HASHING_THREADS = 8
HASHING_CHUNK = 256

ContentHash = Callable[["pa.Table", "pa.Table", Mapping[str, Any]], str]


@dataclass(frozen=True)
class Gate:
    """What a gate demands.

    Attributes:
        name: A proposition; the name of the asset check.
        limit: What is measured must not be above it, or below it for a floor.
        unit: Of the limit and of what is measured.
        description: What it looks at.
        origin: Where the limit is from.
        waivable: Whether a named person may let a release through for a while although it fails.
            That holds for judgements of quality; damage and missing parts nobody waives.
        lasting: Whether it must hold for as long as the release is current. What depends on how
            busy the machines are is asked once, before publication.
    """

    name: str
    limit: float
    unit: str
    description: str
    origin: str
    waivable: bool = False
    lasting: bool = True


@dataclass(frozen=True)
class GateResult:
    """What a gate found.

    Attributes:
        name: The gate's.
        passed: Whether the release may be published as far as this gate goes.
        measured: In the gate's unit; None where it could not be measured.
        limit: The gate's.
        unit: The gate's.
        detail: What was found, and what to do where it failed.
        waived_until: The last day on which it counts as passed by a person's word, ISO; None where
            it passed or failed by itself.
    """

    name: str
    passed: bool
    measured: float | None
    limit: float
    unit: str
    detail: str
    waived_until: str | None = None


@dataclass(frozen=True)
class Staged:
    """What the gates judge.

    Attributes:
        dataset_hash: Content hash that the release names.
        manifest: Of the dataset.
        pairs: The dataset's pairs.
        sets: The dataset's sets.
        report_html: None where there is none.
        report_json: None where there is none.
        package: Prefix of the dataset's package and SHA-256 of its manifest; None where there is
            none.
        waivers: In force today.
        smoke: Asks the lookup API, once, and gives what it answered.
    """

    dataset_hash: str
    manifest: Mapping[str, Any]
    pairs: pa.Table
    sets: pa.Table
    report_html: bytes | None
    report_json: bytes | None
    package: Mapping[str, str] | None
    waivers: Sequence[Waiver] = ()
    smoke: Callable[[], Smoke] | None = None


SCHEMA_MATCHES = Gate(
    "schema_matches",
    0,
    "differences",
    "Both tables have the columns and types of this version of the lab, as many rows as the "
    "manifest says, and ids that the API can look up.",
    "any difference breaks readers of the record",
)
EVERY_SET_IS_COMPLETE = Gate(
    "every_set_is_complete",
    0,
    "sets",
    "Each set has one member for each of its values, exactly one of them the placebo, and each "
    "pair belongs to a set.",
    "a bias metric over an incomplete set compares different people",
)
NO_HASH_MISMATCH = Gate(
    "no_hash_mismatch",
    0,
    "objects",
    "Each picture in the bucket, hashed anew, and the dataset's content hash, computed anew, are "
    "what the release names.",
    "a release is content-addressed: any mismatch is damage or tampering",
)
QUALITY_IS_ABOVE_FLOOR = Gate(
    "quality_is_above_floor",
    MEDIAN_CITS_FLOOR,
    "median CITS",
    f"The median CITS of the counterfactuals, placebos left out, is at least "
    f"{MEDIAN_CITS_FLOOR}, over at least {MIN_SETS} sets.",
    "0.5: a counterfactual is more likely right than wrong; 6 sets: the least number for which "
    "a median has a 95 % interval",
    waivable=True,
)
REPORT_IS_PRESENT = Gate(
    "report_is_present",
    2,
    "documents",
    "The bias report is there as HTML and as JSON, both can be parsed and are of this dataset.",
    "both forms of the report",
)
AUDITOR_IS_CALIBRATED = Gate(
    "auditor_is_calibrated",
    0,
    "quantities",
    "On oracles with planted effects over this dataset's sets, every quantity that the sets are "
    "enough to measure of the auditor is within its limits, and the report says so.",
    "an auditor that finds what is not there, or misses what is, must not be believed",
    waivable=True,
)
PACKAGE_IS_VERIFIED = Gate(
    "package_is_verified",
    0,
    "pictures or files",
    "The dataset's package is there, each of its files is the one that its manifest names, and "
    "each picture's Content Credentials are intact and name its pair and its source.",
    "a picture without provenance must not leave the lab",
)

LOOKUPS_ARE_RIGHT = Gate(
    "lookups_are_right",
    0,
    "answers",
    "Every one of the records, pictures and reports that the lookup API is asked for comes back "
    "byte for byte as the dataset has it, under the release's id.",
    "whoever looks a pair up must get this pair, of this release",
)
LOOKUPS_ARE_FAST = Gate(
    "lookups_are_fast",
    P95_CEILING,
    "s",
    "Of those answers, 95 in 100 come within a second, one being asked for at a time.",
    "the longest that a person's flow of thought stays unbroken (Nielsen 1993, chapter 5)",
    lasting=False,
)

GATES = (
    SCHEMA_MATCHES,
    EVERY_SET_IS_COMPLETE,
    NO_HASH_MISMATCH,
    QUALITY_IS_ABOVE_FLOOR,
    REPORT_IS_PRESENT,
    AUDITOR_IS_CALIBRATED,
    PACKAGE_IS_VERIFIED,
    LOOKUPS_ARE_RIGHT,
    LOOKUPS_ARE_FAST,
)
LASTING = frozenset(gate.name for gate in GATES if gate.lasting)


def evaluate(
    staged: Staged, read: Callable[[str], bytes], content_hash: ContentHash
) -> list[GateResult]:
    """The results of all gates, in the order of `GATES`.

    Args:
        staged: what is judged.
        read: gives the bytes under a bucket key; `LookupError` where there is no object.
        content_hash: of pairs, sets and configuration; see `counterfactuals.dataset`.
    """
    judges: dict[Gate, Callable[[], GateResult]] = {
        SCHEMA_MATCHES: lambda: schema_matches(staged),
        EVERY_SET_IS_COMPLETE: lambda: every_set_is_complete(staged),
        NO_HASH_MISMATCH: lambda: no_hash_mismatch(staged, read, content_hash),
        QUALITY_IS_ABOVE_FLOOR: lambda: quality_is_above_floor(staged),
        REPORT_IS_PRESENT: lambda: report_is_present(staged),
        AUDITOR_IS_CALIBRATED: lambda: auditor_is_calibrated(staged),
        PACKAGE_IS_VERIFIED: lambda: package_is_verified(staged, read),
        LOOKUPS_ARE_RIGHT: lambda: lookups_are_right(staged),
        LOOKUPS_ARE_FAST: lambda: lookups_are_fast(staged),
    }
    return [_waived(gate, _judged(gate, judges[gate]), staged) for gate in GATES]


def _waived(gate: Gate, result: GateResult, staged: Staged) -> GateResult:
    """A failure as a waiver of it leaves it; one that the report does not show changes nothing."""
    given = [one for one in staged.waivers if one.gate == gate.name]
    if result.passed or not gate.waivable or not given:
        return result
    shown = _waivers_shown(staged.report_json)
    counting = [one for one in given if one.waiver_id in shown]
    if not counting:
        unseen = (
            f"; {given[-1].person}'s waiver of it is not in the release's report: materialise "
            "audits/bias_report, then releases/candidate"
        )
        return replace(result, detail=result.detail + unseen)
    waiver = max(counting, key=lambda one: one.until)
    until = waiver.until.isoformat()
    said = f"waived until {until} by {waiver.person} ({waiver.reason}); it failed: "
    return replace(result, passed=True, detail=said + result.detail, waived_until=until)


def _waivers_shown(report_json: bytes | None) -> set[int]:
    try:
        return {int(one["waiver_id"]) for one in json.loads(report_json or b"")["body"]["waivers"]}
    except (ValueError, LookupError, TypeError):
        return set()


def _judged(gate: Gate, judge: Callable[[], GateResult]) -> GateResult:
    try:
        return judge()
    except (LookupError, TypeError, ValueError) as error:
        detail = f"could not be measured, so it failed: {type(error).__name__}: {error}"
        return GateResult(gate.name, False, None, gate.limit, gate.unit, detail)


def _result(gate: Gate, measured: float, passed: bool, detail: str) -> GateResult:
    return GateResult(gate.name, passed, float(measured), gate.limit, gate.unit, detail)


def _counted(gate: Gate, faults: Sequence[str], fine: str, remedy: str) -> GateResult:
    if not faults:
        return _result(gate, 0, True, fine)
    shown = "; ".join(faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return _result(gate, len(faults), False, f"{shown}{more}: {remedy}")


def schema_matches(staged: Staged) -> GateResult:
    """Columns, types, numbers of rows, and the form of ids."""
    from cf_lab_assets.counterfactuals.tables import schema

    faults: list[str] = []
    for name, table in (("pairs", staged.pairs), ("sets", staged.sets)):
        faults += _schema_faults(name, table.schema, schema(name))
        if table.num_rows != staged.manifest[name]:
            faults.append(
                f"{name}: {table.num_rows} rows, and {staged.manifest[name]} in the manifest"
            )
    faults += _id_faults(staged)
    return _counted(
        SCHEMA_MATCHES,
        faults,
        f"{staged.pairs.num_rows} pairs and {staged.sets.num_rows} sets",
        "materialise counterfactuals/dataset again with this version of the lab",
    )


def _schema_faults(name: str, found: pa.Schema, expected: pa.Schema) -> Iterator[str]:
    types = {field.name: field.type for field in found}
    for field in expected:
        kind = types.pop(field.name, None)
        if kind is None:
            yield f"{name}: no column {field.name}"
        elif kind != field.type:
            yield f"{name}: {field.name} is {kind}, not {field.type}"
    for column in types:
        yield f"{name}: unknown column {column}"


def _id_faults(staged: Staged) -> Iterator[str]:
    from cf_lab_resources.catalog.ids import is_record_id, is_sha256

    for table, column, good in (
        (staged.pairs, "pair_id", is_record_id),
        (staged.pairs, "image_sha256", is_sha256),
        (staged.sets, "set_id", is_record_id),
    ):
        if column in table.column_names:
            for value in table.column(column).to_pylist():
                if value is None or not good(value):
                    yield f"{column} {value!r} is malformed"


def every_set_is_complete(staged: Staged) -> GateResult:
    """One member a value, one placebo of an edited set, no pair without a set, nothing twice.

    A set that was drawn from captions has no value that it was edited from, and no placebo.
    """
    members: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
    columns = ("set_id", "pair_id", "value", "is_placebo")
    for set_id, *member in zip(*(staged.pairs.column(c).to_pylist() for c in columns), strict=True):
        members[set_id].append((member[0], member[1], member[2]))
    faults: list[str] = []
    known: set[str] = set()
    for row in staged.sets.select(["set_id", "member_values", "from_value"]).to_pylist():
        set_id = row["set_id"]
        if set_id in known:
            faults.append(f"{set_id}: the set is there twice")
        known.add(set_id)
        fault = _set_fault(row, members.get(set_id, []))
        if fault:
            faults.append(f"{set_id}: {fault}")
    faults += [f"{set_id}: pairs of no set" for set_id in members if set_id not in known]
    return _counted(
        EVERY_SET_IS_COMPLETE,
        faults,
        f"all of {len(known)} sets",
        "see counterfactuals/accepted_sets of these sources' batches",
    )


def _set_fault(row: Mapping[str, Any], members: Sequence[tuple[str, str, bool]]) -> str | None:
    values = Counter(value for _, value, _ in members)
    expected = Counter(row["member_values"])
    if len({pair_id for pair_id, _, _ in members}) < len(members):
        return "two members have the same id"
    if any(count > 1 for count in (values | expected).values()):
        return "a value is there twice"
    if values != expected:
        missing, extra = sorted(expected - values), sorted(values - expected)
        return f"no member for {missing}" if missing else f"members for unknown values {extra}"
    if len(expected) < 2:
        return "fewer than two members"
    placebos = [value for _, value, is_placebo in members if is_placebo]
    own = row["from_value"]
    if placebos != ([] if own is None else [own]):
        return f"placebos are {placebos}, not the source's own value {own!r} once"
    return None


def no_hash_mismatch(
    staged: Staged, read: Callable[[str], bytes], content_hash: ContentHash
) -> GateResult:
    """Pictures and dataset, hashed anew; one picture a thread is in memory at a time."""
    faults = []
    for where, digest in (
        ("the manifest says", staged.manifest["content_hash"]),
        ("computed anew it is", content_hash(staged.pairs, staged.sets, staged.manifest["config"])),
    ):
        if digest != staged.dataset_hash:
            faults.append(f"the dataset is {staged.dataset_hash[:12]}, and {where} {digest[:12]}")
    pictures = _pictures(staged.pairs)
    faults += hash_faults(pictures, read)
    return _counted(
        NO_HASH_MISMATCH,
        faults,
        f"{len(pictures)} pictures and the dataset",
        "restore the bucket from its backup, or run make_counterfactuals of the batch and "
        "make_dataset again, by which what is damaged is drawn anew",
    )


def _pictures(pairs: pa.Table) -> list[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for prefix in ("", "source_"):
        keys = pairs.column(f"{prefix}image_key").to_pylist()
        found.update(zip(keys, pairs.column(f"{prefix}image_sha256").to_pylist(), strict=True))
    return sorted(found)


def hash_faults(pictures: Iterable[tuple[str, str]], read: Callable[[str], bytes]) -> Iterator[str]:
    """What is wrong with objects, given as (key, SHA-256); read and hashed by threads."""

    def fault(picture: tuple[str, str]) -> str | None:
        key, digest = picture
        try:
            found = hashlib.sha256(read(key)).hexdigest()
        except LookupError:
            return f"{key} is missing"
        return None if found == digest else f"{key} has the hash {found[:12]}"

    remaining = iter(pictures)
    with ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hash") as threads:
        while chunk := list(islice(remaining, HASHING_CHUNK)):
            yield from (found for found in threads.map(fault, chunk) if found)


SCORED = ("cits", "is_placebo", "instruction", "image_sha256", "source_image_sha256")


def quality_is_above_floor(staged: Staged) -> GateResult:
    """The median CITS of counterfactuals, and the number of sets."""
    scores = [
        float("nan") if pair["cits"] is None else float(pair["cits"])
        for pair in staged.pairs.select(SCORED).to_pylist()
        if is_change(pair)
    ]
    sets = staged.sets.num_rows
    unknown = sum(score != score for score in scores)
    median = statistics.median(scores) if scores and not unknown else 0.0
    passed = not unknown and median >= MEDIAN_CITS_FLOOR and sets >= MIN_SETS
    found = f"median {median:.3f} of {len(scores)} counterfactuals in {sets} sets"
    if unknown:
        found += f", {unknown} of them without a score"
    remedy = (
        ""
        if passed
        else (
            f": at least {MEDIAN_CITS_FLOOR} over {MIN_SETS} sets or more is needed; ingest more "
            "sources, or raise the draws or the editor's steps"
        )
    )
    return _result(QUALITY_IS_ABOVE_FLOOR, median, passed, found + remedy)


def report_is_present(staged: Staged) -> GateResult:
    """Both forms of the report, parsed, and of this dataset."""
    faults = [
        fault
        for fault in (
            _html_fault(staged.report_html, staged.dataset_hash),
            _json_fault(staged.report_json, staged.dataset_hash),
        )
        if fault
    ]
    good = int(REPORT_IS_PRESENT.limit) - len(faults)
    detail = (
        "HTML and JSON"
        if not faults
        else (f"{'; '.join(faults)}: materialise audits/bias_report, then releases/candidate")
    )
    return _result(REPORT_IS_PRESENT, good, not faults, detail)


def _html_fault(data: bytes | None, dataset_hash: str) -> str | None:
    if data is None:
        return "report.html is missing"
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        return "report.html is not UTF-8"
    if not text[:15].lower().startswith("<!doctype html") or not text.lower().endswith("</html>"):
        return "report.html is not a whole HTML page"
    if dataset_hash[:12] not in text:
        return "report.html is of another dataset"
    return None


def _json_fault(data: bytes | None, dataset_hash: str) -> str | None:
    if data is None:
        return "report.json is missing"
    try:
        named = json.loads(data)["body"]["data"]["dataset_hash"]
    except (ValueError, LookupError, TypeError):
        return "report.json is not a report's JSON"
    return None if named == dataset_hash else f"report.json is of dataset {str(named)[:12]}"


def auditor_is_calibrated(staged: Staged) -> GateResult:
    """The calibration that the report holds: none of its quantities outside its limits."""
    remedy = "materialise audits/calibration, audits/bias_report, then releases/candidate"
    if staged.report_json is None:
        return _result(AUDITOR_IS_CALIBRATED, 1, False, f"there is no report: {remedy}")
    found = json.loads(staged.report_json)["body"]["calibration"]["found"]
    if found is None:
        return _result(AUDITOR_IS_CALIBRATED, 1, False, f"the report has no calibration: {remedy}")
    outside = [
        f"{one['oracle']}, {one['attribute']}: {one['name']} is {one['measured']:.3g}"
        for one in found["quantities"]
        if not one["passed"]
    ]
    fine = f"{found['measured']} quantities over {found['audits']} audits of each oracle"
    if not found["measured"]:
        fine = "too few sets to measure any quantity, and to audit a model"
    return _counted(AUDITOR_IS_CALIBRATED, outside, fine, "do not publish what it measured")


def package_is_verified(staged: Staged, read: Callable[[str], bytes]) -> GateResult:
    """The package that the release names, read back whole."""
    from cf_lab_assets.counterfactuals.packaging.manifest import MANIFEST, parse_manifest
    from cf_lab_assets.counterfactuals.packaging.verification import verify_package

    remedy = "materialise counterfactuals/package, then releases/candidate"
    if staged.package is None:
        return _result(PACKAGE_IS_VERIFIED, 1, False, f"there is no package: {remedy}")
    prefix = staged.package["prefix"]
    data = read(f"{prefix}/{MANIFEST}")
    if hashlib.sha256(data).hexdigest() != staged.package["sha256"]:
        fault = f"{prefix}/{MANIFEST} is not the one that the release names"
        return _counted(PACKAGE_IS_VERIFIED, [fault], "", remedy)
    manifest = parse_manifest(data)
    if manifest["dataset"] != staged.dataset_hash:
        return _counted(PACKAGE_IS_VERIFIED, ["it is of another dataset"], "", remedy)
    found = verify_package(lambda path: read(f"{prefix}/{path}"), manifest)
    return _counted(
        PACKAGE_IS_VERIFIED,
        found.faults,
        f"{found.count} pictures in {len(manifest['files'])} files",
        remedy,
    )


def lookups_are_right(staged: Staged) -> GateResult:
    """Answers of the lookup API against the dataset."""
    smoke = _smoke(staged)
    return _counted(
        LOOKUPS_ARE_RIGHT,
        smoke.wrong,
        f"{len(smoke.seconds)} answers",
        "if the records were changed, drop them and stage the release again; if the API can't "
        "answer, look into its log",
    )


def lookups_are_fast(staged: Staged) -> GateResult:
    """The 95th percentile of their durations."""
    smoke = _smoke(staged)
    passed = smoke.p95 <= P95_CEILING
    detail = f"95 in 100 of {len(smoke.seconds)} answers came within {smoke.p95:.3f} s"
    remedy = "; see whether Postgres, Redis and the bucket are slow, then run the check again"
    return _result(LOOKUPS_ARE_FAST, smoke.p95, passed, detail + ("" if passed else remedy))


def _smoke(staged: Staged) -> Smoke:
    if staged.smoke is None:
        raise ValueError("the lookup API was not asked")
    return staged.smoke()
