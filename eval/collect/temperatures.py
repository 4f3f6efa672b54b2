"""At which temperature a strategy samples, and what of it the bank has to hold; nothing here reads or computes rows.

The bank's samples at the sampler's temperature come first: they tell how hard a question is, and answer every strategy
that names no other temperature. Those at another one are drawn with random numbers of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ttcjax.config import ExperimentConfig
from ttcjax.search import registry

Chosen = Mapping[tuple[str, int], float]
"""The temperature that won on validation, by strategy (as the config writes it) and budget."""


def possible(config: ExperimentConfig, name: str, n: int, chosen: Chosen | None) -> tuple[float, ...]:
    """Return the temperatures at which a strategy may sample at a budget: one, unless it is still to be chosen.

    Args:
        config: The experiment.
        name: Of the strategy, as the config writes it.
        n: The budget.
        chosen: What won on validation; `None` where that is not known yet.
    """
    named = registry.named(name)
    if named.validated:
        return config.sweep.temperatures if chosen is None else (chosen[name, n],)
    own = named.strategy.temperature
    return (config.sampler.temperature if own is None else own,)


def bank_samples(config: ExperimentConfig, chosen: Chosen | None) -> dict[float, int]:
    """Return how many samples of a question the bank holds at each temperature, that of the sampler first.

    At others as many as judge at the sampler's where a majority or best-of-N asks for them, and where nothing but
    searches do that are best-of-N at small budgets, the largest of these.

    Args:
        config: The experiment.
        chosen: As for `possible`; where it is not known, the bank may need every candidate, and no more.
    """
    sweep = config.sweep
    found = {config.sampler.temperature: sweep.samples}
    for name in sweep.strategies:
        named = registry.named(name)
        asked = 0 if named.searches else sweep.judged
        for n in sweep.budgets:
            if named.is_best_of_n(n):
                for temperature in possible(config, name, n, chosen):
                    found[temperature] = max(found.get(temperature, 0), asked or n)
    return found


def stream(config: ExperimentConfig, temperature: float) -> int:
    """Return the seed of the bank's samples at a temperature: `sweep.seed` at the sampler's, else one of its own.

    So samples at two temperatures are independent, and those at one do not depend on which others there are.
    """
    seed = config.sweep.seed
    if temperature == config.sampler.temperature:
        return seed
    digest = hashlib.sha256(f"{seed} temperature {float(temperature)!r}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1  # The seed's column in results is int32.


def rows_at(bank: pa.Table, temperature: float) -> pa.Table:
    """Return the rows of a bank at a temperature, in their order."""
    return bank.filter(pc.field("temperature") == temperature)
