"""Examples that cannot be used: found by the data stage, before a model is trained on the others.

What is looked for: an empty question, an empty solution, halves of characters, no answer that can be read, the same
question with different answers, and a question that leaves no room for a solution. By `data.faults` they end the stage,
or are left out, counted and listed.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from ttcjax.data.task import Example
from ttcjax.runtime.errors import UserError


@dataclass(frozen=True)
class Fault:
    """Reason why an example cannot be used."""

    where: str
    """Its file and line, or its id."""
    what: str


def screened(
    examples: Iterable[tuple[str, Example]], answers_alone: Container[str] = ()
) -> tuple[list[Example], list[Fault]]:
    """Return the examples that can be used, in their order, and what is wrong with the others.

    Args:
        examples: Each with the place it comes from; of all splits together, since one question must not have one answer
            in training and another in the test.
        answers_alone: Ids of examples that may come without a solution.
    """
    examples = list(examples)
    answers: dict[str, set[str]] = collections.defaultdict(set)
    for _, example in examples:
        answers[_plain(example.question)].add(example.answer)
    kept, faults, ids = [], [], set[str]()
    for where, example in examples:
        found = answers[_plain(example.question)]
        if not _plain(example.question):
            faults.append(Fault(where, "the question is empty"))
        elif example.id in ids:
            faults.append(Fault(where, f"the id {example.id!r} stands in another line too"))
        elif not example.solution.strip() and example.id not in answers_alone:
            faults.append(Fault(where, "the solution is empty"))
        elif not example.answer.strip():
            faults.append(Fault(where, "there is no answer"))
        elif not _is_text(example.question + example.solution):
            faults.append(Fault(where, "it has a half of a character (a lone surrogate), which no file can hold"))
        elif len(found) > 1:
            told = ", ".join(sorted(found)[:3])
            faults.append(Fault(where, f"the same question has different answers: {told}"))
        else:
            kept.append(example)
        ids.add(example.id)
    return kept, faults


def refusal(faults: Sequence[Fault], cure: str = "mend them") -> UserError:
    """Return the error that names the first faults and how to go on without the examples."""
    named = "; ".join(f"{fault.where}: {fault.what}" for fault in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    count = f"{len(faults)} example{'s' * (len(faults) > 1)}"
    return UserError(
        f"{count} cannot be used: {named}{more}. {cure[0].upper()}{cure[1:]}, or "
        "leave them out with --data.faults leave_out, which lists them in data/left_out.csv"
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(question: str) -> str:
    """Return a question as it looks: one form of every character, nothing that cannot be seen."""
    seen = unicodedata.normalize("NFC", question)
    return " ".join("".join(c for c in seen if unicodedata.category(c) != "Cf").split())
