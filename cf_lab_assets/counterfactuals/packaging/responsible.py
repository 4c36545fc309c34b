"""What Croissant's RAI vocabulary asks of a dataset, answered: limits, biases, uses, origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.packaging.facts import Facts


def properties(facts: Facts) -> dict[str, Any]:
    """The RAI properties that mlcroissant has fields for."""
    models = ", ".join(f"{model['name']} ({role})" for role, model in facts.models.items())
    starter = (
        ["Drawn by a starter editor in a schematic world of 64 pixels: no pictures of people."]
        if facts.starter
        else []
    )
    return {
        "data_collection": (
            f"{facts.sources} source pairs of {len(facts.batches)} delivered batches; for each, "
            "captions were rewritten by rules and pictures drawn by an editor."
        ),
        "data_collection_type": ["Synthetic", "Derived from delivered image-text pairs"],
        "data_preprocessing_protocol": [
            "Source pictures were decoded, size-capped and stored as PNG."
        ],
        "data_annotation_protocol": [
            "Values are prompted, from metadata or caption of the source; scores are by models."
        ],
        "machine_annotation_tools": [models] if models else None,
        "data_limitations": [
            "Results hold for what the editor draws and need not hold for photographs.",
            "Values of attributes are few and coarse.",
            *starter,
        ],
        "data_biases": [
            "The editor may draw some values better than others; sets are accepted whole, and "
            "acceptance differs by attribute.",
            "Scorers decide what is kept and bring their own biases.",
        ],
        "data_use_cases": [
            "Auditing vision-language models for differences within counterfactual sets.",
            "Not for training, for decisions about people, or as evidence of legal compliance.",
        ],
        "data_social_impact": (
            "Differences in treatment become measurable. Values read as identities, or results "
            "read as clearance, would do harm: both are excluded in the card."
        ),
        "personal_sensitive_information": [
            "Prompted or perceived values of protected attributes, never anybody's identity. "
            "Source pictures are the deliverer's; whether they show real people is theirs to say."
        ],
        "data_release_maintenance_plan": (
            "Immutable by content hash; a faulty release is withdrawn and an earlier one made "
            "current."
        ),
    }


_FROM_CAPTIONS = (
    " {facts.from_captions} of {facts.pairs} pictures are no edits but were drawn from their "
    "captions alone, all members of a set from the same noise."
)


def origin(facts: Facts) -> dict[str, Any]:
    """Synthetic data and PROV: from which batches, by which activities and models."""
    agents = [
        {
            "@type": "prov:SoftwareAgent",
            "prov:label": f"{role}: {model['name']}",
            "sc:identifier": f"sha256:{model['sha256']}",
        }
        for role, model in facts.models.items()
    ]
    return {
        "rai:hasSyntheticData": True,
        # mlcroissant 1.1 writes this one under a name that the vocabulary does not have.
        "rai:dataManipulationProtocol": (
            "Each member of a set is the source picture edited by a diffusion model towards one "
            "prompted value; the placebo is edited towards the values that are there already."
            + _FROM_CAPTIONS.format(facts=facts)
            * bool(facts.from_captions)
        ),
        "prov:wasDerivedFrom": [
            {
                "@type": "prov:Entity",
                "prov:label": f"source batch {batch}",
                "sc:identifier": f"sha256:{digest}",
            }
            for batch, digest in facts.batches.items()
        ],
        "prov:wasGeneratedBy": [
            {
                "@type": "prov:Activity",
                "prov:label": label,
                "sc:description": description,
                **({"prov:wasAssociatedWith": agents} if with_models and agents else {}),
            }
            for label, description, with_models in (
                ("Planning", "Captions were rewritten by rules, one for each value.", False),
                ("Drawing and scoring", "Pictures were drawn, scored and filtered.", True),
                ("Packaging", "Pictures were signed with Content Credentials.", False),
            )
        ],
    }
