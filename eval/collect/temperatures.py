"""At which temperature a strategy samples, and what of it the bank has to hold; nothing here reads or computes rows.

The bank's samples at the sampler's temperature come first: they tell how hard a question is, and answer every strategy
that names no other temperature. Those at another one are drawn with random numbers of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ttcjax.config import ExperimentConfig
from ttcjax.search import registry

Chosen = Mapping[tuple[str, int], float]
"""The temperature that won on validation, by strategy (as the config writes it) and budget."""


@dataclass(frozen=True)
class Grid:
    """Strategies at budgets, and the temperatures at which they may sample."""

    strategies: tuple[str, ...]
    """As the config writes them."""
    budgets: tuple[int, ...]
    temperature: float
    """The sampler's."""
    candidates: tuple[float, ...]
    """Temperatures among which strategies with `temperature=validated` are tried on validation questions."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Grid:
        """Return what an experiment compares."""
        sweep = config.sweep
        return cls(sweep.strategies, sweep.budgets, config.sampler.temperature, sweep.temperatures)

    @property
    def validated(self) -> tuple[str, ...]:
        """The strategies whose temperature is chosen on validation questions."""
        return tuple(name for name in self.strategies if registry.named(name).validated)

    @property
    def searches(self) -> Grid:
        """The strategies that search at one budget at least: those that the bank does not answer."""
        kept = (s for s in self.strategies if not all(registry.named(s).is_best_of_n(n) for n in self.budgets))
        return dataclasses.replace(self, strategies=tuple(kept))

    def possible(self, name: str, n: int, chosen: Chosen | None) -> tuple[float, ...]:
        """Return the temperatures at which a strategy may sample at a budget: one, unless it is still to be chosen.

        Args:
            name: Of the strategy.
            n: The budget.
            chosen: What won on validation; `None` where that is not known yet.
        """
        named = registry.named(name)
        if named.validated:
            return self.candidates if chosen is None else (chosen[name, n],)
        own = named.strategy.temperature
        return (self.temperature if own is None else own,)


@dataclass(frozen=True)
class BankSamples:
    """Samples of a question that the bank holds at each temperature."""

    fixed: tuple[tuple[float, int], ...]
    """(temperature, samples), that of the sampler first."""
    validated: tuple[tuple[str, int, int], ...]
    """(strategy, budget, samples) at a temperature that is chosen on validation questions."""
    candidates: tuple[float, ...]

    @classmethod
    def of(cls, grid: Grid, samples: int, judged: int) -> BankSamples:
        """Return what strategies ask of a bank.

        At other temperatures than the sampler's as many as judge there, where a majority or best-of-N asks for them,
        and where nothing but searches do that are best-of-N at small budgets, the largest of these.

        Args:
            grid: The strategies.
            samples: At the sampler's temperature.
            judged: Of these, those that judge majority and best-of-N.
        """
        fixed, validated = {grid.temperature: samples}, []
        for name in grid.strategies:
            named = registry.named(name)
            asked = 0 if named.searches else judged
            for n in filter(named.is_best_of_n, grid.budgets):
                if named.validated:
                    validated.append((name, n, asked or n))
                else:
                    [temperature] = grid.possible(name, n, None)
                    fixed[temperature] = max(fixed.get(temperature, 0), asked or n)
        return cls(tuple(fixed.items()), tuple(validated), grid.candidates if validated else ())

    def at(self, chosen: Chosen | None) -> dict[float, int]:
        """Return the samples by temperature, that of the sampler first.

        Args:
            chosen: What won on validation; where that is not known yet, the bank may need every candidate, and no more.
        """
        found = dict(self.fixed)
        for name, n, asked in self.validated:
            for temperature in self.candidates if chosen is None else (chosen[name, n],):
                found[temperature] = max(found.get(temperature, 0), asked)
        return found


def stream(seed: int, temperature: float, own: float) -> int:
    """Return the seed of the bank's samples at a temperature: the bank's at the sampler's, else one of its own.

    So samples at two temperatures are independent, and those at one do not depend on which others there are.

    Args:
        seed: Of the bank.
        temperature: Of the samples.
        own: The sampler's.
    """
    if temperature == own:
        return seed
    digest = hashlib.sha256(f"{seed} temperature {float(temperature)!r}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1  # The seed's column in results is int32.


def rows_at(bank: pa.Table, temperature: float) -> pa.Table:
    """Return the rows of a bank at a temperature, in their order."""
    return bank.filter(pc.field("temperature") == temperature)
