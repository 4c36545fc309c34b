"""How each metric is defined, and its policy of zeros, ties and missing data, for every report.

The formulas stand in the modules that compute them; here they are in words for the reader of a
report. Each entry names the metrics that it speaks of, as `results` spells them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cf_lab_assets.audits import results as r

BCA = "Cluster bootstrap over sets, BCa (Efron 1987)."
EXCHANGE = "exchange of the two members within sets, two-sided, add-one."
MAX_T = (
    "Max-T over all contrasts (Westfall and Young 1993): the interval holds whichever difference "
    "is the largest, and p is of no difference at all."
)
DECIDED = "Abstentions and rows without a prediction are no decisions; they are counted apart."
RATE_ZERO = "A rate of 0 or 1 is a number like any other; 0 / 0 is not computed."
NO_TIES = "No ranking is involved."


def _entry(
    names: tuple[str, ...],
    metric: str,
    definition: str,
    zero: str,
    ties: str,
    missing: str,
    interval: str,
) -> dict[str, Any]:
    return {
        "names": list(names),
        "metric": metric,
        "definition": definition,
        "zero": zero,
        "ties": ties,
        "missing": missing,
        "interval": interval,
    }


DEFINITIONS = (
    _entry(
        (r.EFFECT,),
        "Signed paired effect",
        "Mean over counterfactual sets of f(member with the second value) - f(member with the "
        "first). Primary: f is the mean score of the plus prompts less that of the minus prompts "
        "(WEAT's s(w, A, B), Caliskan et al. 2017). Secondary: f is the score of one prompt. A set "
        "of several matched rows counts with their mean.",
        "An effect of 0 is a number like any other.",
        "No ranking is involved; in p, ties count against a finding.",
        "Sets that hold both values are used; their number is given.",
        f"{BCA} p: {EXCHANGE}",
    ),
    _entry(
        (r.STRATUM_EFFECT,),
        "Signed paired effect in a stratum",
        "The effect within the sets' rows that share one value of another attribute. An effect of "
        "opposite signs in two groups cancels out over all of them and is seen here.",
        "As for the signed paired effect.",
        "As for the signed paired effect.",
        "As for the signed paired effect; each stratum has its own number of sets.",
        f"{BCA} p: {EXCHANGE}",
    ),
    _entry(
        (r.SKEW,),
        "Skew@K of a value",
        "ln(share of the value among the K pictures with the highest score / its share of the "
        "pool), Geyik et al. 2019. The pool is every member of the attribute's complete sets, so "
        "all values have the same share.",
        'A value absent from the top K has Skew -inf, written as "-inf"; never 0, never smoothed.',
        "Pictures tied at the cut share the places left equally; exactly K are given.",
        "Sets without every declared value are left out of rankings and counted.",
        "Cluster bootstrap over sets, percentile without interpolation, extended to the estimate "
        "where all resamples lie beyond it. p: exchange of values within sets, two-sided, add-one.",
    ),
    _entry(
        (r.MAX_SKEW, r.MIN_SKEW),
        "MaxSkew@K, MinSkew@K",
        "The largest and the smallest Skew@K over the values of an attribute. A maximum is above 0 "
        'by chance alone: "no effect" is its median under exchange of values within sets, not 0.',
        "MinSkew is -inf where a value is absent from the top K.",
        "As for Skew@K.",
        "As for Skew@K.",
        "From max-T intervals of all values' shares of the top K, on the scale of arcsine of the "
        "root (Westfall and Young 1993), which hold together. p: exchange of values within sets, "
        "one-sided, high for MaxSkew and low for MinSkew.",
    ),
    _entry(
        (r.NDKL,),
        "NDKL",
        "Normalised discounted Kullback-Leibler divergence of the first i places from equal "
        "shares, i = 1..K, in nats with weights 1 / log2(i + 1) (Geyik et al. 2019, definition 5). "
        'It is above 0 even for an alternating order: "no effect" is its value under exchange.',
        "A value that is absent adds 0, the limit of x ln x.",
        "Within a group of tied pictures the places go to its values in proportion.",
        "As for Skew@K.",
        "As for Skew@K; p by exchange of values within sets.",
    ),
    _entry(
        (r.BIAS,),
        "Bias@K of a contrast",
        "(places of the second value - places of the first) / their sum, among the K pictures with "
        "the highest score (Wang et al. 2021).",
        "Undefined where neither value is among the K.",
        "As for Skew@K.",
        "As for Skew@K.",
        "As for Skew@K; p two-sided.",
    ),
    _entry(
        (r.WEAT,),
        "WEAT/iEAT effect size",
        "(mean score of the second value - mean of the first) / standard deviation of both "
        "together, ddof 1 (Caliskan et al. 2017; Steed and Caliskan 2021).",
        "Undefined where the scores are constant.",
        NO_TIES,
        "Sets that hold both values are used.",
        f"{BCA} p: {EXCHANGE}",
    ),
    _entry(
        (r.FIRST,),
        "First in set",
        "Share of rows in which a value has the highest score, against 1 / number of values.",
        "A share of 0 is a number like any other.",
        "Members tied for the first place share it.",
        "Rows that hold every value are used.",
        f"{BCA} p: exchange within sets, normal limit, two-sided.",
    ),
    _entry(
        (r.SET_RANGE, r.TOKEN_FAIRNESS_GAP),
        "Set range, counterfactual token fairness gap",
        "Range: mean over rows of the highest less the lowest score. Gap: mean of the mean "
        "|difference| over all pairs of members (Garg et al. 2019). Both are above 0 for every "
        "model that is not constant, so they are described and not tested.",
        "0 means that all members of every row have the same score.",
        NO_TIES,
        "Rows that hold every value are used.",
        BCA,
    ),
    _entry(
        (r.SELECTION_RATE,),
        "Selection rate",
        "Share of a value's decisions that select.",
        RATE_ZERO,
        NO_TIES,
        DECIDED,
        f"{BCA} Described, not tested.",
    ),
    _entry(
        (r.SELECTION_GAP, r.TRUE_POSITIVE_GAP, r.FALSE_POSITIVE_GAP),
        "Difference of selection, true positive or false positive rates",
        "Rate of the second value less that of the first; true and false positive rates are among "
        "rows whose label is positive, or negative.",
        RATE_ZERO,
        NO_TIES,
        DECIDED,
        f"{BCA} p: {EXCHANGE}",
    ),
    _entry(
        (r.DEMOGRAPHIC_PARITY, r.PARITY_RATIO),
        "Demographic parity difference and ratio",
        "Largest less smallest selection rate over the values, and smallest over largest (the "
        "names are fairlearn's).",
        "With a group that is never selected the ratio is 0 and has no interval; where nobody is "
        "selected it is not computed.",
        NO_TIES,
        f"{DECIDED} Values under the minimum of sets are left out and listed.",
        f"{MAX_T} Of the ratio on logarithms of (hits + 1/2) / (n + 1); its p is that of the "
        "difference, which has the same hypothesis.",
    ),
    _entry(
        (r.DISPARATE_IMPACT,),
        "Disparate impact",
        "Selection rate of the second value / that of the first (Feldman et al. 2015). It is held "
        "against no fixed limit.",
        "inf or undefined where the first value is never selected.",
        NO_TIES,
        DECIDED,
        f"{BCA} p: {EXCHANGE}",
    ),
    _entry(
        (r.EQUAL_OPPORTUNITY, r.EQUALIZED_ODDS, r.AVERAGE_ODDS),
        "Equal opportunity, equalized odds and average odds difference",
        "Largest difference of the true positive rate between values (Hardt et al. 2016); the "
        "larger of the largest differences of true and false positive rates; and their mean.",
        RATE_ZERO,
        NO_TIES,
        f"{DECIDED} Rows without a label are left out.",
        f"{MAX_T} Average odds: Bonferroni over both rates.",
    ),
    _entry(
        (r.FLIP_RATE,),
        "Counterfactual flip rate",
        "Share of matched rows in which two members are decided differently; without a contrast, "
        "over all pairs of members. 1 - consistency. It has no direction.",
        "0 means that no decision flips.",
        NO_TIES,
        "Pairs in which both members have a decision are used.",
        f"{BCA} Described, not tested; compare the placebo floor.",
    ),
    _entry(
        (r.ACCURACY, r.ACCURACY_GAP),
        "Resolution accuracy and gap",
        "Share of a value's decisions that equal the label, and that of the second value less that "
        "of the first (VisoGender, Hall et al. 2023), not rounded.",
        RATE_ZERO,
        NO_TIES,
        f"{DECIDED} Rows without a label are left out.",
        f"{BCA} Gap, p: {EXCHANGE}",
    ),
    _entry(
        (r.ABSTENTION, r.SOUNDNESS),
        "Abstention rate, soundness",
        "Share of a value's rows on which the model declines to answer; and that share among rows "
        "whose label says that the picture can not answer.",
        RATE_ZERO,
        NO_TIES,
        "Rows without prediction are left out.",
        f"{BCA} Described, not tested.",
    ),
)
ALWAYS = (
    _entry(
        (),
        "Placebo floor",
        "How much a statistic moves when nothing but the rendering changes. Effects: upper 95 % "
        "bootstrap bound of the mean of |f(re-rendered with the same values) - f(source)|; it is "
        "the noise of one picture and does not shrink with the number of sets. Rankings and "
        "comparisons: the same bound of the change when each set's re-rendered picture gives its "
        "place to the source. Decisions: the same bound of the share of re-rendered pictures that "
        "are decided other than their source.",
        "-",
        "-",
        "Where placebos are required, nothing is called found without a floor; where they are "
        "optional, a floor is asked for only where there are enough placebos to measure one.",
        "One-sided percentile bound.",
    ),
    _entry(
        (),
        "Verdict, q and MDE",
        "Found: the interval excludes the value of no effect, the distance from it exceeds the "
        "placebo floor, and q is below alpha. q: Benjamini and Hochberg 1995 over the family named "
        "beside it. MDE: the smallest true effect that one test at alpha finds with the declared "
        "power, before the floor is asked for; for rankings the distance from the value of no "
        "effect, from the spread of the exchanged values. Described: a number that no hypothesis "
        "is about. Undefined: it can not be computed from these data, for the reason given.",
        "-",
        "-",
        'Under the declared minimum of sets a result is "insufficient": listed with its n, without '
        "numbers, outside every family.",
        "-",
    ),
    _entry(
        (),
        "Against the limit",
        "Where somebody declared the largest effect that is tolerated: within the limit, if the "
        "whole interval lies within plus and minus the limit; exceeded, if the whole interval lies "
        "beyond it; undecided otherwise.",
        "-",
        "-",
        "Without numbers it is undecided.",
        "That of the effect.",
    ),
)


def definitions(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """The entries that speak of the given metrics, and those that every report needs."""
    wanted = set(metrics)
    return [one for one in DEFINITIONS if wanted & set(one["names"])] + list(ALWAYS)
