"""Seeded streams of examples, disjoint between splits by question text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Literal

from ttcjax.data.procmath.templates import TEMPLATES, Problem, draw
from ttcjax.data.task import Example

Split = Literal["train", "valid", "test"]
SUBJECTS = tuple(TEMPLATES)
LEVELS = 5
_BUCKETS: dict[str, range] = {"test": range(2), "valid": range(2, 4), "train": range(4, 20)}
_TRIES = {"train": 30, "valid": 5000, "test": 5000}


def split_of(question: str) -> str:
    """Return the split a question text belongs to, whatever the seed: so no two splits can share a text."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 20
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def generate(split: Split, count: int, seed: int) -> Iterator[Example]:
    """Yield `count` questions of a split, subjects and levels in equal shares.

    Validation and test questions are all different. Training questions of the easiest kinds, of which there
    are few, may come again. The first k examples are the same for every `count` of at least k.

    Raises:
        ValueError: A subject and level have too few different questions for `count`.
    """
    seen: set[str] = set()
    for index in range(count):
        subject, level = SUBJECTS[index % len(SUBJECTS)], index // len(SUBJECTS) % LEVELS + 1
        rng = random.Random(f"{seed}/{split}/{index}")
        found: Problem | None = None
        for _ in range(_TRIES[split]):
            problem = draw(subject, level, rng)
            if split_of(problem.question) != split:
                continue
            if problem.question not in seen:
                found = problem
                break
            if split == "train":
                found = problem
        if found is None:
            raise ValueError(
                f"procmath has too few different {subject} questions of level {level} for {count} {split} examples"
            )
        seen.add(found.question)
        yield Example(
            id=f"procmath-{split}-{seed}-{index}",
            question=found.question,
            solution="\n".join((*found.steps, f"Answer: {found.answer}")),
            answer=str(found.answer),
            level=level,
            subject=subject,
        )
