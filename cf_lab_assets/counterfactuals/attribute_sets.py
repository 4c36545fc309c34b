"""What a counterfactual set varies: one attribute, or an intersection of several.

It is written ``gender`` or ``gender+age``, and a value of it ``man`` or ``man+young``: the form
that stands in ids, tables and URLs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cf_lab_resources.errors import LabError

JOIN = "+"


class AttributeUnknown(LabError):
    """An attribute, or an intersection, that can't be varied; the message says which can."""


def joined(values: Mapping[str, str], attributes: Sequence[str]) -> str | None:
    """The values of several attributes in their written form, None where one is unknown."""
    found = [values.get(attribute) for attribute in attributes]
    return None if None in found else JOIN.join(str(value) for value in found)


def value_of(values: Mapping[str, str], name: str) -> str:
    """The value of an attribute set that is named in its written form.

    Raises:
        KeyError: the values lack an attribute of it.
    """
    return JOIN.join(values[attribute] for attribute in name.split(JOIN))


@dataclass(frozen=True)
class AttributeSet:
    """One attribute or an intersection, its attributes in the order of the values' mapping.

    Attributes:
        attributes: names of the attributes.
        values: of each attribute, those that members show.
    """

    attributes: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str, drawable: Mapping[str, Sequence[str]]) -> AttributeSet:
        """Read the written form.

        Args:
            text: attributes joined by ``+``, in any order.
            drawable: the values that can be shown, by attribute.

        Raises:
            AttributeUnknown: an attribute is not drawable or is named twice.
        """
        named = [part.strip() for part in text.split(JOIN)]
        for attribute in named:
            if attribute not in drawable:
                raise AttributeUnknown(
                    f"attribute {attribute!r} of {text!r} can't be drawn by the installed editor; "
                    f"use some of {', '.join(drawable)}, or several joined by {JOIN!r}"
                )
        if len(set(named)) < len(named):
            raise AttributeUnknown(f"{text!r} names an attribute twice; name each once")
        attributes = tuple(attribute for attribute in drawable if attribute in named)
        return cls(attributes, tuple(tuple(drawable[attribute]) for attribute in attributes))

    @property
    def name(self) -> str:
        """The written form, such as ``gender+age``."""
        return JOIN.join(self.attributes)

    def members(self) -> Iterator[dict[str, str]]:
        """The values of each member: all combinations, the last attribute's changing fastest."""
        for combination in itertools.product(*self.values):
            yield dict(zip(self.attributes, combination, strict=True))


def parse_all(texts: Sequence[str], drawable: Mapping[str, Sequence[str]]) -> list[AttributeSet]:
    """Several attribute sets, each once.

    Raises:
        AttributeUnknown: one can't be drawn, or there is none.
    """
    sets = list(dict.fromkeys(AttributeSet.parse(text, drawable) for text in texts))
    if not sets:
        raise AttributeUnknown(f"no attribute is to be varied; name some of {', '.join(drawable)}")
    return sets
