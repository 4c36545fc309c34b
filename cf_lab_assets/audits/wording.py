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
    "Made by an automatic run of the lab by whoever operates it. It is not an independent audit; "
    "the report is unsigned until responsible persons sign and date it."
)
LEGAL_SCOPE = (
    "This report claims no compliance with any law, standard or threshold. It is technical "
    "evidence from synthetic pictures. It is not a bias audit under New York City Local Law 144, "
    "which needs data about applicants, nor a conformity assessment under Regulation (EU) "
    "2024/1689. No ratio in it is held against the four-fifths rule."
)
LIMITATIONS = (
    "The pictures are generated or edited. What a model does with them may differ from what it "
    "does with photographs; a comparison with photographs is not part of this report.",
    "An editor may change more than it was asked to. Placebo pairs measure how much rendering "
    "alone moves a score, not what goes along with one particular value.",
    "Association scores are one way to question a model. Others, such as forced choice or free "
    "text, can give differences of another size or sign.",
    "A difference that was not found is not shown to be absent: compare the minimum detectable "
    "effect and the placebo floor with what would matter in use.",
    "Families for false discovery control are formed for each audited model on its own.",
    "Intersections of attributes are not tested in this report.",
)
RESIDUAL_RISKS = (
    "Occupations, attributes and values that were not declared were not examined.",
    "Sets that the filter rejected may differ from those that it kept; compare the shares "
    "accepted for each source group.",
)
DEFINITIONS = (
    {
        "metric": "Signed paired effect",
        "definition": "Mean over counterfactual sets of f(member with the second value) - f(member "
        "with the first). Primary: f is the mean cosine to the plus prompts less that to the minus "
        "prompts (WEAT's s(w, A, B), Caliskan et al. 2017). Secondary: f is the cosine to one "
        "prompt.",
        "zero": "An effect of 0 is a number like any other.",
        "ties": "No ranking is involved; in p, ties count against a finding.",
        "missing": "Sets that hold both values are used; their number is given.",
        "interval": "Cluster bootstrap over sets, BCa (Efron 1987). p: exchange of the two members "
        "within sets, two-sided, add-one.",
    },
    {
        "metric": "Skew@K of a value",
        "definition": "ln(share of the value among the K pictures nearest to the prompt / its "
        "share of the pool), Geyik et al. 2019. The pool is every member of the attribute's "
        "complete sets, so all values have the same share.",
        "zero": 'A value absent from the top K has Skew -inf, written as "-inf"; never 0, never '
        "smoothed.",
        "ties": "Pictures tied at the cut share the places left equally; exactly K are given.",
        "missing": "Sets without every declared value are left out of rankings and counted.",
        "interval": "Cluster bootstrap over sets, percentile without interpolation, extended to "
        "the estimate where all resamples lie beyond it. p: exchange of values within sets, "
        "two-sided, add-one.",
    },
    {
        "metric": "MaxSkew@K, MinSkew@K",
        "definition": "The largest and the smallest Skew@K over the values of an attribute. A "
        'maximum is above 0 by chance alone: "no effect" is its median under exchange of values '
        "within sets, not 0.",
        "zero": "MinSkew is -inf where a value is absent from the top K.",
        "ties": "As for Skew@K.",
        "missing": "As for Skew@K.",
        "interval": "As for Skew@K; p one-sided, high for MaxSkew and low for MinSkew.",
    },
    {
        "metric": "Placebo floor",
        "definition": "How much a statistic moves when nothing but the rendering changes. Effects: "
        "upper 95 % bootstrap bound of the mean of |f(re-rendered with the same values) - "
        "f(source)|; it is the noise of one picture and does not shrink with the number of sets. "
        "Rankings: the same bound of the change when each set's re-rendered picture gives its "
        "place to the source.",
        "zero": "-",
        "ties": "-",
        "missing": "Without enough placebos there is no floor and nothing is called found.",
        "interval": "One-sided percentile bound.",
    },
    {
        "metric": "Verdict, q and MDE",
        "definition": "Found: the interval excludes the value of no effect, the distance from it "
        "exceeds the placebo floor, and q is below alpha. q: Benjamini and Hochberg 1995 over the "
        "family named beside it. MDE: the smallest true effect that one test at alpha finds with "
        "the declared power, before the floor is asked for; for rankings the distance from the "
        "value of no effect, from the spread of the exchanged values.",
        "zero": "-",
        "ties": "-",
        "missing": 'Under the declared minimum of sets a result is "insufficient": listed with its '
        "n, without numbers, outside every family.",
        "interval": "-",
    },
)
