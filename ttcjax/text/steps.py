"""Solutions as steps, and the tokens at which steps end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SEPARATOR = "\n"


def split_steps(solution: str) -> list[str]:
    """Return the lines of `solution`; `join_steps` puts them back together exactly.

    A solution of k lines has k steps, blank lines included, and as many step-end tokens once `eos` follows it.
    """
    return solution.split(SEPARATOR)


def join_steps(steps: Sequence[str]) -> str:
    """Return the solution that consists of `steps`, each free of newlines."""
    return SEPARATOR.join(steps)


def step_end_mask(tokens: np.ndarray, step_end_ids: Sequence[int], prompt_lengths: np.ndarray | int = 0) -> np.ndarray:
    """Return where solution steps end.

    Args:
        tokens: Ids, `[..., T]`.
        step_end_ids: `Tokenizer.step_end_ids`.
        prompt_lengths: Tokens of each row before its solution, `[...]` or one number for all; the newlines
            of a prompt end no step.

    Returns:
        Booleans, `[..., T]`.
    """
    tokens = np.asarray(tokens)
    in_solution = np.arange(tokens.shape[-1]) >= np.asarray(prompt_lengths)[..., None]
    return np.isin(tokens, step_end_ids) & in_solution


def step_end_positions(
    tokens: np.ndarray | Sequence[int], step_end_ids: Sequence[int], prompt_length: int = 0
) -> list[int]:
    """Return the positions in one row of tokens, `[T]`, at which a solution step ends."""
    mask = step_end_mask(np.asarray(tokens, np.int64), step_end_ids, prompt_length)
    return np.flatnonzero(mask).tolist()
