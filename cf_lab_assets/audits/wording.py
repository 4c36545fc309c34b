"""What every bias report says in the same words: purpose, definitions, limits, legal scope."""

from __future__ import annotations

ATTRIBUTE_NOTE = (
    "Attribute values are what the picture was prompted to show and what a viewer may perceive. "
    "They are not, and must not be read as, anybody's identity. Every taxonomy here is a short "
    "list that leaves people out."
)
PURPOSE = (
    "To show whether an audited model scores pictures differently when nothing but a protected "
    "attribute of the person shown changes, and how surely that can be said."
)
INDEPENDENCE = (
    "Made by an automatic run by whoever operates it. It is not an independent audit. The "
    "signature shows which key sealed the report, and not that anybody independent reviewed it."
)
LEGAL_SCOPE = (
    "This report claims no compliance with any law, standard or threshold. A synthetic audit is "
    "not a Local Law 144 audit: a bias audit under New York City Local Law 144 needs data about "
    "applicants. Nor is this a conformity assessment under Regulation (EU) 2024/1689. No ratio in "
    "it is held against the four-fifths rule."
)
IMPACT_RATIOS = (
    "These tables have the form of a bias audit's under New York City Local Law 144 (6 RCNY "
    "5-301), for comparison only. They are not a Local Law 144 audit, which needs data about "
    "applicants, and no ratio is held against a limit."
)
NOT_CALIBRATED = (
    "Not calibrated: no run of this auditor on planted biases of known size was given to it."
)
FAILED = "The auditor did not measure all planted biases within its limits; see below."
NOT_CHECKED = "No checks of the instrument (editor, filter, confounds) were given to the report."
NOT_STATED = "not stated"
LIMITATIONS = (
    "A difference that was not found is not shown to be absent: compare the minimum detectable "
    "effect and the placebo floor with what would matter in use.",
    "Families for false discovery control are formed for each audited model on its own.",
    "Every taxonomy of attributes is coarse; what it leaves out was not examined.",
)
LIMITATIONS_OF_PICTURES = (
    "The pictures are generated or edited. What a model does with them may differ from what it "
    "does with photographs; a comparison with photographs is not part of this report.",
    "An editor may change more than it was asked to. Placebo pairs measure how much rendering "
    "alone moves a score, not what goes along with one particular value.",
    "Association scores are one way to question a model. Others, such as forced choice or free "
    "text, can give differences of another size or sign.",
)
LIMITATIONS_OF_TABLES = (
    "The scores were delivered as a table. How they came about, and whether the members of a set "
    "differ in nothing but the attribute, was not examined.",
)
RESIDUAL_RISKS = (
    "Prompts, attributes and values that were not declared were not examined.",
    "Sets or rows that were left out may differ from those that were kept; compare the shares "
    "accepted for each group.",
)
