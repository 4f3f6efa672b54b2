"""Seeded streams of examples, disjoint between splits by the numbers of a question."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from ttcjax.config import procmath_subjects
from ttcjax.data.procmath.search import FAMILIES
from ttcjax.data.procmath.templates import draw
from ttcjax.data.task import Example

Split = Literal["train", "valid", "test"]
LEVELS = 5
_BUCKETS: dict[str, range] = {"test": range(2), "valid": range(2, 4), "train": range(4, 20)}
_TRIES = {"train": 30, "valid": 5000, "test": 5000}


def form_of(subject: str, question: str) -> str:
    """Return what makes two questions of a subject the same to a model that knows one of them: their numbers.

    Names, things, function letters and all other words are left out, and so is the order of the numbers. That takes
    some questions for the same that are not, and none for different that are the same but for words or order.
    """
    return f"{subject} {' '.join(map(str, sorted(map(int, re.findall(r'[0-9]+', question)))))}"


def split_of(form: str) -> str:
    """Return the split that a form belongs to, whatever the seed: so no two splits can share one."""
    bucket = hashlib.sha256(form.encode()).digest()[0] % 20
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def generate(
    split: Split,
    count: int,
    seed: int,
    families: Sequence[str] = ("derivations", "search"),
    *,
    check_lines: bool = True,
) -> Iterator[Example]:
    """Yield `count` questions of a split, subjects and levels in equal shares.

    The forms of validation and test questions are all different. Training questions of the easiest kinds, of which
    there are few, may come again. The first k examples are the same for every `count` of at least k.

    Args:
        split: Which one.
        count: Questions.
        seed: Root of all random numbers.
        families: As `DataConfig.families`.
        check_lines: As `DataConfig.check_lines`.

    Raises:
        ValueError: A subject and level have too few different questions for `count`.
    """
    subjects = procmath_subjects(families)
    seen: set[tuple[str, ...]] = set()
    for index in range(count):
        subject, level = subjects[index % len(subjects)], index // len(subjects) % LEVELS + 1
        rng = random.Random(f"{seed}/{split}/{index}")
        found = None
        for _ in range(_TRIES[split]):
            question, lines, answer = _draw(subject, level, rng, check_lines)
            form = form_of(subject, question)
            if split_of(form) != split:
                continue
            numbers = subject, *re.findall(r"[0-9]+", question)
            if numbers not in seen:
                found = numbers, question, lines, answer
                break
            if split == "train":
                found = numbers, question, lines, answer
        if found is None:
            raise ValueError(
                f"procmath has too few different {subject} questions of level {level} for {count} {split} examples"
            )
        numbers, question, lines, answer = found
        seen.add(numbers)
        yield Example(
            id=f"procmath-{split}-{seed}-{index}",
            question=question,
            solution="\n".join(lines),
            answer=answer,
            level=level,
            subject=subject,
        )


def _draw(subject: str, level: int, rng: random.Random, check_lines: bool) -> tuple[str, tuple[str, ...], str]:
    """Return a question, the lines of its solution and its answer."""
    family = FAMILIES.get(subject)
    if family is None:
        problem = draw(subject, level, rng)
        return problem.question, (*problem.steps, f"Answer: {problem.answer}"), problem.answer
    puzzle = family.question(rng, level)
    attempt = family.attempt(puzzle, family.right(puzzle))
    return family.ask(puzzle), attempt.draft(check_lines).lines, ", ".join(map(str, attempt.answer))
