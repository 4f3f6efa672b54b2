"""Searches as most tests look at them: by their final candidates."""

from ttcjax.search.ops import search


def candidates(engine, strategy, prompts, seed):
    """Return the final candidates of every prompt."""
    return [outcome.candidates for outcome in search(engine, strategy, prompts, seed)]
