"""Heads beside FFNs under draws over facts, worked out a second time in plain Python."""

import math
from collections.abc import Callable
from fractions import Fraction
from statistics import stdev

import numpy as np

from tests.warehouse.drawn_lake import (
    CHECKPOINTS,
    COMPONENTS,
    LAYERS,
    ONE,
    REPLICATES,
    TAU_IDS,
    THETA,
    DrawnLake,
    Sets,
    approx,
    drawn_roles,
    measure,
    of_kind,
    primary_sets,
)
from tests.warehouse.roles_twin import ROLES, kind_of


def test_kind_comparisons(drawn_lake: DrawnLake) -> None:
    """At a common τ, at matched rates and without a threshold: every column."""
    layer_weights = [row["weights"] for row in drawn_lake.rows("from drawn_layers order by resample")]
    assert len(layer_weights) == REPLICATES + 1 and set(layer_weights[0]) == {1}
    assert all(sum(weights) == LAYERS for weights in layer_weights)
    thresholds = {tau_id: matched_threshold(drawn_lake, tau_id) for tau_id in TAU_IDS}
    assert any(lower != float(tau_id) for tau_id, lower in thresholds.items())
    values = {
        comparison: {
            (tau_id, name): [of_draw(number) for number in range(REPLICATES + 1)]
            for tau_id in TAU_IDS
            for name in CHECKPOINTS
            for of_draw in [
                drawn_sets(drawn_lake, name, tau_id, None if comparison == "common_tau" else thresholds[tau_id])
            ]
        }
        for comparison in ("common_tau", "matched_rate")
    }
    ranks = {
        name: [contribution_ranks(drawn_lake, name, number) for number in range(REPLICATES + 1)] for name in CHECKPOINTS
    }
    rows = drawn_lake.of_series("fct_kind_comparisons")
    assert len(rows) == len(TAU_IDS) * 3 * 3
    for row in rows:
        before, after = (row[f"{end}_checkpoint_id"].removeprefix(f"{ONE}/") for end in ("from", "to"))
        tau_id, comparison = row["tau_id"], row["comparison"]
        drawn: list[tuple[float | None, float | None, float | None]] = []
        for number, weights in enumerate(layer_weights):
            if comparison == "threshold_free":
                head, ffn = (
                    rank_correlation(ranks[before][number], ranks[after][number], weights, kind) for kind in KINDS
                )
                sign = -1
            else:
                sets = values[comparison]
                heads, ffns = values["common_tau"], sets
                head, ffn = (
                    layer_turnover(own[tau_id, before][number], own[tau_id, after][number], weights, kind)
                    for own, kind in ((heads, "head"), (ffns, "ffn"))
                )
                sign = 1
            drawn.append((head, ffn, None if head is None or ffn is None else sign * (head - ffn)))
        differences = [difference for _, _, difference in drawn[1:] if difference is not None]
        error = 1.959963984540054 * stdev(differences)
        expected = dict(zip(("head_value", "ffn_value", "difference"), drawn[0], strict=True))
        if drawn[0][2] is not None:
            expected |= {"difference_low": max(-2, drawn[0][2] - error), "difference_high": min(2, drawn[0][2] + error)}
        if comparison != "threshold_free":
            tau_ffn = float(tau_id) if comparison == "common_tau" else thresholds[tau_id]
            expected |= {
                "tau_head": float(tau_id),
                "tau_ffn": tau_ffn,
                "head_rate": pooled_rate(drawn_lake, after, tau_id, "head"),
            }
            lowest = tau_ffn if tau_ffn != float(tau_id) else 0
            expected["ffn_rate"] = pooled_rate(drawn_lake, after, tau_id, "ffn", lowest)
        assert {name: row[name] for name in expected} == approx(expected), row


KINDS = ("head", "ffn")


def pooled_rate(lake: DrawnLake, name: str, tau_id: str, kind: str, lowest: float = 0) -> float:
    active = sum(kind_of(component) == kind and peak > lowest for component, _, _, peak in lake.peaks[name, tau_id])
    components = sum(kind_of(component) == kind for component in COMPONENTS)
    return active / (components * sum(len(prompt.target_positions) for prompt in lake.prompts))


def matched_threshold(lake: DrawnLake, tau_id: str) -> float:
    """The smallest peak above which FFNs are, at the last checkpoint, no more often active than heads."""
    heads = pooled_rate(lake, CHECKPOINTS[-1], tau_id, "head")
    if pooled_rate(lake, CHECKPOINTS[-1], tau_id, "ffn") <= heads:
        return float(tau_id)
    peaks = sorted(peak for component, _, _, peak in lake.peaks[CHECKPOINTS[-1], tau_id] if kind_of(component) == "ffn")
    return next(peak for peak in peaks if pooled_rate(lake, CHECKPOINTS[-1], tau_id, "ffn", peak) <= heads)


def drawn_sets(lake: DrawnLake, name: str, tau_id: str, lowest: float | None) -> Callable[[int], Sets]:
    """The sets of a draw; the observed facts are draw 0. With `lowest`, of what has larger peaks."""
    matched = None
    if lowest is not None and lowest != float(tau_id):
        active: dict[str, list[set[int]]] = {component: [set() for _ in lake.prompts] for component in COMPONENTS}
        for component, prompt, position, peak in lake.peaks[name, tau_id]:
            if peak > lowest:
                active[component][prompt].add(position)
        matched = measure(lake.prompts, active)

    def of_draw(number: int) -> Sets:
        draw = ("bootstrap", number, "") if number else ("observed", 0, "")
        if matched is None:
            return lake.sets[name, tau_id, draw, Fraction(THETA)]
        return drawn_roles(lake, matched, *lake.weights[draw], Fraction(THETA))

    return of_draw


def layer_turnover(before: Sets, after: Sets, weights: list[float], kind: str) -> float | None:
    old, new = primary_sets(before), primary_sets(after)
    counted = of_kind(frozenset().union(*old.values(), *new.values()), kind)
    changed = counted - frozenset().union(*(old[role] & new[role] for role in ROLES))
    total = sum(weights[int(component[1])] for component in counted)
    return sum(weights[int(component[1])] for component in changed) / total if total else None


def contribution_ranks(lake: DrawnLake, name: str, number: int) -> dict[str, float]:
    """Ranks within the kind of the components' mean contributions; equal ones share their mean rank."""
    weights, _ = lake.weights[("bootstrap", number, "") if number else ("observed", 0, "")]
    ranks = {}
    for kind in KINDS:
        means = {
            component: sum(weights[fact] * value for fact, value in lake.contributions[name][component].items())
            for component in COMPONENTS
            if kind_of(component) == kind
        }
        for component, mean in means.items():
            ranks[component] = (
                sum(other < mean for other in means.values()) + sum(o == mean for o in means.values()) / 2
            )
    return ranks


def rank_correlation(
    before: dict[str, float], after: dict[str, float], weights: list[float], kind: str
) -> float | None:
    components = [component for component in COMPONENTS if kind_of(component) == kind]
    of_layer = [weights[int(component[1])] for component in components]
    pair = np.array([[ranks[component] for component in components] for ranks in (before, after)])
    covariance = np.cov(pair, aweights=of_layer, ddof=0)
    if covariance[0, 0] <= 1e-9 or covariance[1, 1] <= 1e-9:
        return None
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
