"""Which distributions are installed, which the lock names, and what the package index has newer.

Only what is installed is looked at: a distribution that the lock names and that is missing may be
left out on purpose, as the tools for development are.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

REVIEW = "dependencies"
LOCK = Path(__file__).parents[2] / "deploy" / "requirements.lock"
# Asking for some 220 distributions twice takes a minute or two; a busy machine may need more.
PIP_SECONDS = 1200.0
# The lab's own name is nobody else's business, and an index that has it has another thing.
OWN_NAME = "multimodal-counterfactual-lab"
NOT_CHECKED = "not checked"
UNKNOWN = "unknown"
MAX_LICENCE = 60

DIFFERS = "differs from the lock"
NEWER = "a newer one is out"
UNLOCKED = "not in the lock"
UP_TO_DATE = "up to date"
AS_LOCKED = "as locked"  # and the index was not asked, or has none

COLUMNS = {
    "name": ("string", "of the distribution, as package indexes write it"),
    "installed": ("string", "the version that is installed"),
    "locked": ("string", "the version that deploy/requirements.lock names for this machine"),
    "licence": ("string", "as the distribution's own metadata name it"),
    "newest": ("string", "the newest version that the configured package index has"),
    "advisories": ("string", "known vulnerabilities of the installed version"),
    "state": (
        "string",
        f"the first that holds: {DIFFERS}, {NEWER}, {UNLOCKED}, {UP_TO_DATE}, {AS_LOCKED}",
    ),
}

LICENCES = {
    "licence": ("string", COLUMNS["licence"][1]),
    "count": ("int", "of the distributions that come under it"),
}


@dataclass(frozen=True)
class Distribution:
    """What is installed, by its own metadata.

    Attributes:
        name: Canonical, as package indexes write it.
        version: Of the installed one.
        licence: SPDX expression or name; "unknown" where it names none.
    """

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Versions:
    """Versions by canonical name, or why they could not be found out.

    Attributes:
        known: Versions by canonical name.
        unchecked: Why nothing is known; empty where something is.
    """

    known: Mapping[str, str] = field(default_factory=dict)
    unchecked: str = ""

    def of(self, name: str, otherwise: str) -> str:
        """The version of a distribution, in words where there is none."""
        if self.unchecked:
            return f"{NOT_CHECKED}: {self.unchecked}"
        return self.known.get(name, otherwise)

    def has_other(self, one: Distribution) -> bool:
        """Whether another version than the installed one is known."""
        known = self.known.get(one.name)
        return known is not None and canonicalize_version(known) != canonicalize_version(
            one.version
        )


def installed(path: Sequence[str] | None = None) -> list[Distribution]:
    """The installed distributions by name; of two with one name the one that is imported.

    Args:
        path: folders to look in; where Python itself looks if None.
    """
    found: dict[str, Distribution] = {}
    for one in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        if one.metadata["Name"]:  # a half-removed distribution has none
            name = canonicalize_name(one.metadata["Name"])
            found.setdefault(name, Distribution(name, one.version, licence_of(one)))
    return sorted(found.values(), key=lambda one: one.name)


def licence_of(distribution: importlib.metadata.Distribution) -> str:
    """The licence by the metadata's expression, else by its classifiers, else by its free text."""
    about = distribution.metadata
    if expressions := about.get_all("License-Expression"):
        return str(expressions[0])
    names = [
        one.rpartition(" :: ")[2]
        for one in about.get_all("Classifier") or []
        if one.startswith("License :: ") and one != "License :: OSI Approved"
    ]
    if names:
        return ", ".join(sorted(set(names)))
    text = "\n".join(about.get_all("License") or []).strip()
    # Some put the whole licence there.
    return text if text and len(text) <= MAX_LICENCE and "\n" not in text else UNKNOWN


def locked(lock: Path = LOCK) -> Versions:
    """The versions that a lock file names for this Python on this machine."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return Versions(unchecked=f"there is no deploy/{lock.name} beside the package")
    found: dict[str, str] = {}
    for line in lines:
        if "==" not in line or line.startswith((" ", "#")):
            continue
        try:
            one = Requirement(line.removesuffix("\\").strip())
        except InvalidRequirement:
            return Versions(unchecked=f"{lock.name} has a line that is no requirement: {line!r}")
        if one.marker is None or one.marker.evaluate():
            found[canonicalize_name(one.name)] = str(one.specifier).removeprefix("==")
    return Versions(found)


def newest(
    python: str = sys.executable, options: Sequence[str] = (), seconds: float = PIP_SECONDS
) -> Versions:
    """The newest versions that the package index has for which pip is configured.

    pip says nothing of a distribution that it can't find, and ends well when no index answers: so
    it is asked for those that are outdated and for those that are not.

    Args:
        python: whose pip is asked about its own distributions.
        options: more of them for `pip list`.
        seconds: that it may take in all.
    """
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "list"]
    command += ["--format=json", "--retries=1", f"--exclude={OWN_NAME}", *options]
    end = time.monotonic() + seconds
    found: dict[str, str] = {}
    for which, version in (("--outdated", "latest_version"), ("--uptodate", "version")):
        try:
            done = subprocess.run(
                [*command, which],
                capture_output=True,
                text=True,
                timeout=max(0.0, end - time.monotonic()),
            )
        except subprocess.TimeoutExpired:
            return Versions(unchecked=f"pip had no answer after {seconds:g} s")
        if "No module named pip" in done.stderr:
            return Versions(unchecked="there is no pip beside this Python")
        if done.returncode:
            return Versions(unchecked=f"`pip list {which}` ended with code {done.returncode}")
        for one in json.loads(done.stdout):
            found[canonicalize_name(one["name"])] = str(one[version])
    if not found:
        return Versions(unchecked="no package index is configured, or none answers")
    return Versions(found)


def differing(distributions: Sequence[Distribution], lock: Versions) -> list[Distribution]:
    """Those that are installed in another version than the lock names."""
    return [one for one in distributions if lock.has_other(one)]


def report(
    distributions: Sequence[Distribution], lock: Versions, index: Versions
) -> list[dict[str, str]]:
    """A row for each distribution, with the columns of `COLUMNS`."""
    return [
        {
            "name": one.name,
            "installed": one.version,
            "locked": lock.of(one.name, UNLOCKED),
            "licence": one.licence,
            "newest": index.of(one.name, "the index has none"),
            "advisories": NOT_CHECKED,
            "state": _state(one, lock, index),
        }
        for one in distributions
    ]


def _state(one: Distribution, lock: Versions, index: Versions) -> str:
    if lock.has_other(one):
        return DIFFERS
    if index.has_other(one):
        return NEWER
    if not lock.unchecked and one.name not in lock.known:
        return UNLOCKED
    if one.name in index.known:
        return UP_TO_DATE
    return AS_LOCKED if one.name in lock.known else NOT_CHECKED


def counts(rows: Sequence[Mapping[str, str]], column: str) -> dict[str, int]:
    """How many rows have each value of a column, most frequent first."""
    return dict(Counter(row[column] for row in rows).most_common())
