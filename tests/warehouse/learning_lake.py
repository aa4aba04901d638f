"""A series that learns its relations in every way: at once, late, never, back and forth. Predictions only."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warehouse.raw_lake import commit

SERIES = "learning"
FACTS = 25
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, None)
SHAPES: dict[str, list[int]] = {  # relation -> facts recalled at each checkpoint
    "swings between 0.04 and 1": [1, 25, 1, 25, 1, 25, 1, 25, 1, 25],
    "swings and ends low": [25, 1, 25, 1, 25, 1, 25, 1, 25, 1],
    "rises": [0, 0, 1, 5, 12, 20, 24, 25, 25, 25],
    "falls": [25, 24, 20, 12, 6, 5, 4, 3, 2, 1],
    "reaches exactly nine tenths": [0, 0, 0, 9, 9, 9, 10, 10, 10, 10],
    "known from the start": [25] * 10,
    "never known": [0] * 10,
    "learned at the end": [0] * 9 + [20],
    "no better than guessing": [0, 1, 2, 3, 5, 5, 5, 5, 5, 5],
}


@dataclass(frozen=True)
class Course:
    """One relation: at each checkpoint the facts that were asked, and those of them that were recalled."""

    relation_id: str
    asked: list[int]
    recalled: list[int]
    majority_fact_count: int


def commit_courses(lake: Path) -> list[Course]:
    """Commit the series; its side branch and its later phase recall everything, which must not count."""
    chance = random.Random(0)
    courses = [Course(relation, [FACTS] * len(STEPS), counts, 5) for relation, counts in SHAPES.items()]
    for number in range(12):
        asked = [chance.randint(1, FACTS) for _ in STEPS]
        recalled = [chance.randint(0, count) for count in asked[:-1]] + [chance.randint(asked[-1] // 2, asked[-1])]
        courses.append(Course(f"random {number}", asked, recalled, chance.choice([1, 5])))

    everything = [Course(course.relation_id, [FACTS], [FACTS], course.majority_fact_count) for course in courses]
    for index, step in enumerate(STEPS):
        name = "main" if step is None else f"step{step}"
        commit(lake, SERIES, name, raw_tables(courses, index), step=step)
    commit(lake, SERIES, "side", raw_tables(everything, 0), step=3, branch="a side branch")
    commit(lake, SERIES, "tuned", raw_tables(everything, 0), step=200, phase="tuning")
    return courses


def raw_tables(courses: list[Course], index: int) -> dict[str, list[dict[str, Any]]]:
    """Raw tables of one checkpoint. The first `majority_fact_count` facts of a relation share an answer."""
    tables: dict[str, list[dict[str, Any]]] = {"prompts": [], "prompt_tokens": [], "predictions": []}
    for number, course in enumerate(courses):
        for fact in range(FACTS):
            prompt_id = number * FACTS + fact
            tables["prompts"].append(
                {
                    "prompt_id": prompt_id,
                    "relation_id": course.relation_id,
                    "fact_id": f"{course.relation_id}/{fact}",
                    "subject": f"subject {fact}",
                    "object": f"object {fact}",
                }
            )
            tables["prompt_tokens"] += [
                {"prompt_id": prompt_id, "position": 0, "span_role": "subject", "is_answer_predicting": True},
                {
                    "prompt_id": prompt_id,
                    "position": 1,
                    "span_role": "answer",
                    "token_id": max(fact, course.majority_fact_count - 1),
                },
            ]
            if fact < course.asked[index]:
                rank = 0 if fact < course.recalled[index] else 100
                tables["predictions"].append({"prompt_id": prompt_id, "readout": 4, "rank": rank})
    return tables
