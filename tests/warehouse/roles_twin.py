"""The same roles a second time, from method.md alone: fractions and sets, slow and plain. For tests only."""

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import Any

ROLES = ("general", "entity", "relation_answer", "fact_answer")


@dataclass
class Prompt:
    relation_id: str
    fact_id: str
    target_positions: set[int]
    subject_positions: set[int]
    answer_predicting_positions: set[int]


@dataclass
class Checkpoint:
    """One checkpoint at one tau. `active` maps a component to its active positions per prompt."""

    checkpoint_id: str
    stage: tuple[str, str]
    """Phase and stage. Checkpoints of one branch of one stage are a run."""
    branch: str
    prompts: list[Prompt]
    active: dict[str, list[set[int]]]
    reference_id: str = ""
    previous: "Checkpoint | None" = None
    memberships: set[tuple[str, str, str, str | None]] = field(default_factory=set)
    """(component, role, scope, relation)"""

    def decide_roles(self, theta: Fraction) -> None:
        for component, active in self.active.items():
            pairs = list(zip(self.prompts, active, strict=True))
            shares = [Fraction(len(on & prompt.target_positions), len(prompt.target_positions)) for prompt, on in pairs]
            if round(sum(shares) / len(shares), 9) > theta:
                self.memberships.add((component, "general", "all", None))
                continue
            hits = sum(len(on & p.subject_positions) + len(on & p.answer_predicting_positions) for p, on in pairs)
            total = sum(len(p.subject_positions) + len(p.answer_predicting_positions) for p, _ in pairs)
            if Fraction(hits, total) > theta:
                self.memberships.add((component, "entity", "entity", None))
                continue
            for relation_id in {prompt.relation_id for prompt in self.prompts}:
                of_relation = [(prompt, on) for prompt, on in pairs if prompt.relation_id == relation_id]
                if answer_rate(of_relation) > theta:
                    self.memberships.add((component, "relation_answer", relation_id, relation_id))
                    continue
                for fact_id in {prompt.fact_id for prompt, _ in of_relation}:
                    if answer_rate([(prompt, on) for prompt, on in of_relation if prompt.fact_id == fact_id]) > theta:
                        self.memberships.add((component, "fact_answer", fact_id, relation_id))

    def holders(self, kind: str, role: str, of_relation: str | None = None) -> set[str]:
        """Components with the role; with it in one relation, if one is given."""
        return {
            component
            for component, held, _, relation_id in self.memberships
            if kind_of(component) == kind and held == role and of_relation in (None, relation_id)
        }

    def primary_role(self, component: str) -> str:
        held = {role for name, role, _, _ in self.memberships if name == component}
        return next((role for role in ROLES if role in held), "inactive")


def answer_rate(pairs: list[tuple[Prompt, set[int]]]) -> Fraction:
    hits = sum(len(on & prompt.answer_predicting_positions) for prompt, on in pairs)
    return Fraction(hits, sum(len(prompt.answer_predicting_positions) for prompt, _ in pairs))


def kind_of(component: str) -> str:
    return "ffn" if component.endswith("F") else "head"


def overlap(left: set[str], right: set[str]) -> float | None:
    return len(left & right) / len(left | right) if left | right else None


def predecessor(checkpoint: Checkpoint, earlier: list[Checkpoint], stage_before: list[Checkpoint]) -> Checkpoint | None:
    """What a checkpoint follows: in its run, else in the stage before. `earlier` are those of its own stage."""
    if run := [one for one in earlier if one.branch == checkpoint.branch]:
        return run[-1]
    branches = {one.branch for one in stage_before}
    followed = [one for one in stage_before if len(branches) == 1 or one.branch == checkpoint.branch]
    return followed[-1] if followed else None


def twin_marts(checkpoints: list[Checkpoint], theta: Fraction) -> dict[str, set[tuple[Any, ...]]]:
    """The role marts of one series, setting and tau, without those three columns; `checkpoints` in their order.

    Sets `previous`; expects `reference_id`.
    """
    by_id = {checkpoint.checkpoint_id: checkpoint for checkpoint in checkpoints}
    stage_before: list[Checkpoint] = []
    for _, stage in groupby(checkpoints, key=lambda checkpoint: checkpoint.stage):
        members = list(stage)
        for at, checkpoint in enumerate(members):
            checkpoint.decide_roles(theta)
            checkpoint.previous = predecessor(checkpoint, members[:at], stage_before)
        stage_before = members
    marts: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    spells: dict[tuple[str | None, str], tuple[str, str, int]] = {}  # checkpoint, component -> role, since, changes
    relation_ids = {prompt.relation_id for prompt in checkpoints[0].prompts}
    scopes: list[tuple[str, str | None]] = [("general", None), ("entity", None)]
    scopes += [(role, relation_id) for relation_id in relation_ids for role in ("relation_answer", "fact_answer")]
    for now in checkpoints:
        reference, before = by_id[now.reference_id], now.previous
        previous_id = before.checkpoint_id if before else None
        for component, role, scope_id, relation_id in now.memberships:
            marts["fct_role_memberships"].add((now.checkpoint_id, component, role, scope_id, relation_id))
        for component in now.active:
            role = now.primary_role(component)
            old, since, changes = spells.get((previous_id, component), (role, now.checkpoint_id, 0))
            if role != old:
                since, changes = now.checkpoint_id, changes + 1
            spells[now.checkpoint_id, component] = (role, since, changes)
            old_role = before.primary_role(component) if before else None
            marts["fct_component_histories"].add(
                (now.checkpoint_id, component, role, old_role, previous_id, role != old, since, changes)
            )
        for kind in ("head", "ffn"):
            for role, relation_id in scopes:
                members = now.holders(kind, role, relation_id)
                earlier = before.holders(kind, role, relation_id) if before else set()
                iou_previous = overlap(members, earlier) if before else None
                iou_reference = overlap(members, reference.holders(kind, role, relation_id))
                marts["fct_role_stabilities"].add(
                    (now.checkpoint_id, kind, role, relation_id or "all", len(members), iou_reference, iou_previous)
                )
            if before:
                add_transition(marts, kind, before, now)
    return marts


def add_transition(marts: dict[str, set[tuple[Any, ...]]], kind: str, before: Checkpoint, now: Checkpoint) -> None:
    key = (before.checkpoint_id, now.checkpoint_id, kind)
    components = [component for component in now.active if kind_of(component) == kind]
    moves = [(before.primary_role(component), now.primary_role(component)) for component in components]
    for old in (*ROLES, "inactive"):
        for new in (*ROLES, "inactive"):
            marts["fct_role_transitions"].add((*key, old, new, moves.count((old, new))))
    for role in ("all", *ROLES):
        counted = [move for move in moves if (move != ("inactive", "inactive") if role == "all" else role in move)]
        marts["fct_turnovers"].add((*key, role, sum(old != new for old, new in counted), len(counted)))
    held_before = set().union(*(before.holders(kind, role) for role in ROLES))
    held_now = set().union(*(now.holders(kind, role) for role in ROLES))
    for role in ROLES:
        old, new = before.holders(kind, role), now.holders(kind, role)
        left, entered = old - new, new - old
        switched = [None if other == role else len(left & now.holders(kind, other)) for other in ROLES]
        counts = (len(old), len(new), len(left), len(entered), len(left - held_now), len(entered - held_before))
        marts["fct_role_switches"].add((*key, role, *counts, *switched))
