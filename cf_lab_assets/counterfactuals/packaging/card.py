"""The dataset card and the datasheet: templates, filled with facts.

Every value is escaped unless it was marked as safe, since captions, values and names come from
outside: none of them may become markup, a link that reads otherwise than it leads, or another line
of the header. An address written out stays as it reads, and GitHub makes a link of it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cf_lab_assets.counterfactuals.packaging.shards import SPLIT

if TYPE_CHECKING:
    import datasets
    import jinja2

    from cf_lab_assets.counterfactuals.packaging.facts import Facts
    from cf_lab_resources.publication import Publication

SHOWN_CHARACTERS = 300
UNKNOWN_LICENSE = "unknown"
_MARKUP = re.compile(r"([\\`*_{}\[\]#+!|~$])")
_BREAKS = {"Cc", "Zl", "Zp"}
# Such as overrides of the direction of text, which make a line read as another one; joiners are
# part of words and of emoji.
_UNSEEN = {"Cf", "Cs", "Co"}
_JOINERS = "\u200c\u200d"


def escaped(text: str) -> str:
    """Text as one line of Markdown that reads as it stands; long text is cut."""
    spaced = " ".join("".join(_visible(character) for character in text).split())
    cut = spaced if len(spaced) <= SHOWN_CHARACTERS else spaced[: SHOWN_CHARACTERS - 1] + "\u2026"
    return _MARKUP.sub(r"\\\1", html.escape(cut, quote=False))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in _BREAKS:
        return " "
    return "" if category in _UNSEEN and character not in _JOINERS else character


def environment() -> jinja2.Environment:
    """Templates whose every value is escaped for Markdown."""
    import jinja2
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # HTML escaping alone would leave Markdown; see finalize
    )


def header(
    facts: Facts,
    publication: Publication,
    features: Mapping[str, datasets.Features],
    sizes: Mapping[str, int],
) -> str:
    """The YAML header of a dataset card, as the hub reads it.

    Args:
        facts: of the dataset.
        publication: names the licence.
        features: of each config, "pairs" and "sets".
        sizes: bytes of each config's files.
    """
    import yaml

    rows = {"pairs": facts.pairs, "sets": facts.sets}
    folders = {"pairs": "data", "sets": "sets"}
    fields = {
        "pretty_name": "Counterfactual image-text sets",
        **_license(publication.license),
        "language": ["en"],
        "task_categories": ["zero-shot-image-classification", "image-to-text"],
        "size_categories": [facts.size_category],
        "source_datasets": ["original"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "tags": ["counterfactual", "bias", "fairness", "audit", "synthetic", "c2pa", "croissant"],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": SPLIT, "path": f"{folders[name]}/{SPLIT}-*.parquet"}],
                **({"default": True} if name == "pairs" else {}),
            }
            for name in features
        ],
        "dataset_info": [
            {
                "config_name": name,
                "features": found._to_yaml_list(),
                "splits": [{"name": SPLIT, "num_bytes": sizes[name], "num_examples": rows[name]}],
                "download_size": sizes[name],
                "dataset_size": sizes[name],
            }
            for name, found in features.items()
        ],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10**6)


def _license(license_: str | None) -> dict[str, str]:
    if license_ is None:
        return {"license": UNKNOWN_LICENSE}
    if "://" in license_:
        return {"license": "other", "license_link": license_}
    return {"license": license_.lower()}


def dataset_card(header_text: str, **values: Any) -> str:
    """README.md: the header, then the card.

    Args:
        header_text: from `header`.
        values: facts, publication, example (a set's rows), made_on.
    """
    from markupsafe import Markup

    template = environment().get_template("card.md.jinja")
    return template.render(header=Markup(header_text), split=SPLIT, **values)


def datasheet(**values: Any) -> str:
    """datasheet.md, in the sections of Gebru et al. 2021 ("Datasheets for Datasets").

    Args:
        values: facts, publication, made_on.
    """
    return environment().get_template("datasheet.md.jinja").render(split=SPLIT, **values)
