"""The swap control: answers in view that are another question's, which look as its own do and tell nothing of it.

What a chain gains because attempts inform must vanish here; what it gains otherwise, as from one more try, stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from ttcjax.data.task import Example
from ttcjax.search.chains import Answer, Chains, Reviser


def partners(examples: Sequence[Example]) -> list[int | None]:
    """Return for each question the place of the next one of its subject and level, or else of its subject.

    After the last one comes the first; `None` where there is no other of the subject.
    """
    found: list[int | None] = []
    for i, example in enumerate(examples):
        after = [*range(i + 1, len(examples)), *range(i)]
        same = [j for j in after if examples[j].subject == example.subject]
        close = [j for j in same if examples[j].level == example.level]
        found.append(next(iter([*close, *same]), None))
    return found


def swapped(reviser: Reviser, chains: Chains, partner: Sequence[int | None], answers: int, seed: int) -> Chains:
    """Answer every question with the first answers of its partner's first chain in view.

    Args:
        reviser: Of the questions.
        chains: What it sampled with that seed.
        partner: For every question the place of the one whose answers are shown, as `partners` says.
        answers: How many places of a chain, the first of which has nothing in view and is the chain's own.
        seed: Of the chains.

    Returns:
        A chain a question; none where it has no partner. The answer at place k is independent of the others in it: it
        follows k answers of the partner's chain.
    """
    found: Chains = [[[group[0][0]]] if i is not None else [] for group, i in zip(chains, partner, strict=True)]
    for step in range(1, answers):
        shown = [[[a.text for a in chains[i][0][:step]]] if i is not None else [] for i in partner]
        numbers = [[0] if i is not None else [] for i in partner]
        new: list[list[Answer]] = reviser.revise(shown, numbers, step, seed)
        for group, own in zip(found, new, strict=True):
            if group:
                group[0] += own
    return found
