"""The README names nothing that is not there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from cf_lab_assets.cli import app
from cf_lab_assets.definitions import build_defs
from cf_lab_resources import settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands():
    """Every command of cf-lab, groups' commands as "release list"."""
    found = set()
    for name, command in get_command(app).commands.items():
        found.add(name)
        found |= {f"{name} {inner}" for inner in getattr(command, "commands", {})}
    return found


def test_every_command_exists():
    named = set()
    for words in re.findall(r"cf-lab ((?:[a-z][a-z-]*)(?: [a-z]+(?:\|[a-z]+)*)?)", README):
        first, _, second = words.partition(" ")
        named |= {f"{first} {one}" if one else first for one in second.split("|")}
    assert named
    for name in named:
        assert name in commands() or name.split()[0] in commands(), name
        group = name.split()[0]
        if any(known.startswith(f"{group} ") for known in commands()) and " " in name:
            assert name in commands(), name


def test_every_command_is_named():
    shown = README.replace("|", " ")
    for name in commands():
        assert all(word in shown for word in name.split()), name


def test_every_variable_exists():
    known = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    named = set(re.findall(r"CF_LAB_[A-Z0-9_]+", README))
    assert named == known


def test_every_asset_and_file_exists():
    groups = {spec.group_name for spec in build_defs().resolve_all_asset_specs()}
    keys = {spec.key.to_user_string() for spec in build_defs().resolve_all_asset_specs()}
    for group, rest in re.findall(r"`([a-z]+)/([a-z_*]+)`", README):
        assert f"{group}/{rest}" in keys or (rest == "*" and group in groups)
    for path in re.findall(r"`((?:cf_lab_[a-z]+|deploy)(?:/[\w.]+)*)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("target", re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_no_output_is_left_to_be_filled_in():
    assert not re.search(r"@[A-Z_]+@", README)
