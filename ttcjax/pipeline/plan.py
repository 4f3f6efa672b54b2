"""What an evaluation takes before it is run: generations, tokens, FLOPs and time of every cell, done and left."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.eval.collect import amounts, validated
from ttcjax.eval.collect.amounts import Seen, Units
from ttcjax.eval.records import trained as ledger
from ttcjax.model import flops as compute
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_shard, shard_path
from ttcjax.runtime.progress import duration
from ttcjax.runtime.shards import WHOLE, Part, Shard
from ttcjax.runtime.stage import Inputs
from ttcjax.search import registry
from ttcjax.train.collect import labels

BOUND = "sampler.max_tokens"
"""Where tokens come from when nothing has been sampled yet; they are an upper bound then."""
_OWN, _LIKE = "its own shards", "other budgets"
_HEADER = (
    *("stage", "strategy", "budget", "seeds", "shards done"),
    *("generations left", "policy tokens", "verifier tokens", "policy FLOPs", "verifier FLOPs", "time left"),
)
_READ_AGAIN = ("rescore", "rescore_chains")
"""Stages in which verifiers read what is there, in about the time that the bank's scoring took."""
_COUNTS = ("tokens", "lookahead_tokens", "verifier_tokens", "seconds", "shown")


@dataclass(frozen=True)
class Amount:
    """Cost of some work. Tokens are read and written ones; FLOPs are logical (`ttcjax.model.flops.inference`)."""

    generations: float = 0.0
    policy_tokens: float = 0.0
    verifier_tokens: float = 0.0
    policy_flops: float = 0.0
    verifier_flops: float = 0.0
    seconds: float | None = 0.0
    """Of one process; `None` where nothing is known yet."""
    at_most: bool = False
    """Whether it may come to less, as a strategy may stop before its budget is spent."""

    def __add__(self, other: Amount) -> Amount:
        known = self.seconds is not None and other.seconds is not None
        return Amount(
            self.generations + other.generations,
            self.policy_tokens + other.policy_tokens,
            self.verifier_tokens + other.verifier_tokens,
            self.policy_flops + other.policy_flops,
            self.verifier_flops + other.verifier_flops,
            (self.seconds or 0.0) + (other.seconds or 0.0) if known else None,
            self.at_most or other.at_most,
        )

    @property
    def told(self) -> str:
        """Words before its generations in text."""
        return "at most " * self.at_most

    def times(self, count: int) -> Amount:
        """Return what `count` times the work takes; the time of nothing is known."""
        return Amount(
            self.generations * count,
            self.policy_tokens * count,
            self.verifier_tokens * count,
            self.policy_flops * count,
            self.verifier_flops * count,
            None if self.seconds is None and count else (self.seconds or 0.0) * count,
            self.at_most and count > 0,
        )


@dataclass(frozen=True)
class Cell:
    """A strategy at a budget, with all its seeds: how much of it is done, and what it takes."""

    stage: str
    answers: tuple[tuple[str, int], ...]
    """(name, budget) pairs that it answers."""
    seeds: int
    questions: int
    shards: int
    """Of one part, where it is planned for one; so are the fields below."""
    shards_left: int
    whole: Amount
    left: Amount
    tokens_from: str
    """What token counts rest on: a folder's rows, or `BOUND`."""
    seconds_from: str | None
    """What the time rests on; `None` where it is not known."""


@dataclass(frozen=True)
class Plan:
    """The cells of an evaluation."""

    cells: tuple[Cell, ...]
    part: Part
    most_shards: int
    """Shards of the stage that has most: of so many parts none has two of a stage."""
    from_bank: tuple[str, ...]
    """Strategies that choose among the bank's samples, at no cost."""
    temperatures_known: bool = True
    """Whether the temperatures to be chosen on validation are known; where not, the bank is planned at all of them."""

    @property
    def whole(self) -> Amount:
        return sum((cell.whole for cell in self.cells), Amount())

    @property
    def left(self) -> Amount:
        return sum((cell.left for cell in self.cells), Amount())

    @property
    def known_seconds(self) -> float:
        """Seconds left of the cells whose time is known."""
        return sum(cell.left.seconds or 0.0 for cell in self.cells)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages whose time left is not known yet."""
        return tuple(dict.fromkeys(cell.stage for cell in self.cells if cell.left.seconds is None))


@dataclass(frozen=True)
class Planned:
    """A stage of shards that is planned."""

    stage: Stage
    inputs: Inputs
    """What it reads, as far as there is any of these settings."""
    folder: epath.Path | None
    """Where shards of these settings may lie already."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of its shards."""
        assert self.stage.declared.schema is not None
        return self.stage.declared.schema


def make(config: ExperimentConfig, workdir: epath.Path, planned: Sequence[Planned], part: Part = WHOLE) -> Plan:
    """Plan the evaluation of a config whose models are trained; nothing is run or written.

    Args:
        config: The experiment.
        workdir: Its folder.
        planned: The stages that the config wants.
        part: Whose shards are planned.

    Raises:
        UserError: The data or a model's record is missing or corrupt.
    """
    shards = {one.stage.name: one.stage.shards(config, one.inputs) for one in planned}
    seen = {one.stage.name: _read_shards(one, shards[one.stage.name]) for one in planned}
    costs = _Costs.of(config, workdir, seen, {one.stage.name: one for one in planned})
    cells = []
    for stage, all_shards in shards.items():
        mine = part.of(all_shards)
        for answers in dict.fromkeys(shard.answers for shard in mine):
            own = [shard for shard in mine if shard.answers == answers]
            left = [shard for shard in own if shard not in seen[stage]]
            one, tokens_from, seconds_from = costs.of_question(stage, answers, own[0].generations)
            cells.append(
                Cell(
                    stage,
                    answers,
                    seeds=len({shard.seed for shard in own}),
                    questions=max(shard.first + shard.questions for shard in all_shards),
                    shards=len(own),
                    shards_left=len(left),
                    whole=one.times(sum(shard.questions for shard in own)),
                    left=one.times(sum(shard.questions for shard in left)),
                    tokens_from=tokens_from,
                    seconds_from=seconds_from,
                )
            )
    names = tuple(name for name in config.sweep.strategies if not registry.named(name).searches)
    bank = next(one for one in planned if one.stage.name == "bank")
    decided = validated.known(bank.stage.settings(config).choice, bank.inputs) is not None
    return Plan(tuple(cells), part, max(map(len, shards.values())), names, decided)


def _read_shards(planned: Planned, shards: Sequence[Shard]) -> dict[Shard, Seen]:
    """Return the finished shards of a stage. A damaged one is none."""
    found: dict[Shard, Seen] = {}
    schema = planned.schema
    columns = [name for name in _COUNTS if name in schema.names]
    if planned.folder is None:
        return found
    for shard in shards:
        paths = shard.paths(planned.folder)
        if not all(path.exists() for path in paths):
            continue
        try:
            table = read_shard(paths[0], schema, ["question", *columns])
        except UserError:
            continue
        found[shard] = Seen(
            questions=shard.questions,
            **{name: float(_column(table, name).sum()) / shard.questions for name in _COUNTS},
            rows=table.num_rows / shard.questions,
            revised=float((_column(table, "shown") > 0).sum()) / shard.questions,
        )
    return found


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy() if name in table.column_names else np.zeros(table.num_rows)


@dataclass(frozen=True)
class _Costs:
    """Cost of a question in each cell, from the shards seen so far."""

    config: ExperimentConfig
    planned: Mapping[str, Planned]
    params: Mapping[str, int]
    units: Units
    token_from: str
    seen: Mapping[str, Mapping[Shard, Seen]]
    scoring: float | None
    """Seconds in which the bank's samples of a question were scored."""

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        workdir: epath.Path,
        seen: Mapping[str, Mapping[Shard, Seen]],
        planned: Mapping[str, Planned],
    ) -> _Costs:
        trained = ledger.models(workdir)
        if trained is None:
            raise UserError(f"the records of policy and prm in {workdir} do not say how large the models are")
        prompts = ledger.prompt_tokens(config.test_questions, workdir / "data")
        base = _base(seen)
        token, token_from = _tokens_of_generation(config, workdir, base)
        own = {v.name: ledger.parameters(epath.Path(v.place)) for v in config.sweep.own_verifiers}
        inputs = {name: folder for one in planned.values() for name, folder in one.inputs.items()}
        return cls(
            config,
            planned,
            {name: model["params"] for name, model in trained.items()} | own,
            Units(sum(prompts.values()) / len(prompts), token, inputs, base),
            token_from,
            seen,
            _scoring_seconds(config, planned["bank"].folder, base),
        )

    def of_question(
        self, stage: str, answers: tuple[tuple[str, int], ...], generations: int
    ) -> tuple[Amount, str, str | None]:
        """Return what one question and seed of a cell takes, and what its tokens and its time rest on."""
        own = amounts.of_cell(self.seen[stage], answers)
        declared = self.planned[stage].stage.declared
        assert declared.spends is not None
        spent = declared.spends(declared.settings(self.config), answers, generations, own, self.units)
        seconds, seconds_from = self._seconds(stage, own, spent.generations)
        reader = round(statistics.mean(self.params[name] for name in spent.readers)) if spent.verifier else 0
        amount = Amount(
            spent.generations,
            spent.policy,
            spent.verifier,
            compute.inference(self.params[spent.writer], spent.policy),
            compute.inference(reader, spent.verifier),
            seconds,
            spent.at_most,
        )
        read = own and stage not in _READ_AGAIN
        return amount, stage if read else self.token_from, seconds_from

    def _seconds(self, stage: str, own: list[Seen], generations: int) -> tuple[float | None, str | None]:
        if stage in _READ_AGAIN:
            if self.scoring is None:
                return None, None
            answers = sum(self.config.chains.lengths) / self.config.sweep.samples
            return self.scoring * (answers if stage == "rescore_chains" else 1.0), "the bank's scoring"
        if own:
            # The first shard of a process compiles too.
            return statistics.median_low(found.seconds for found in own), _OWN
        if stage != "search" or not self.seen[stage]:
            return None, None
        known: dict[int, list[float]] = {}
        for shard, found in self.seen[stage].items():
            known.setdefault(shard.generations, []).append(found.seconds)
        budgets = sorted(known)
        seconds = [statistics.median_low(known[n]) for n in budgets]
        # In proportion beyond what is known, a straight line between.
        nearest = min(max(generations, budgets[0]), budgets[-1])
        return float(np.interp(generations, budgets, seconds)) * generations / nearest, _LIKE


def _base(seen: Mapping[str, Mapping[Shard, Seen]]) -> list[Seen]:
    """Return the shards of the bank at the sampler's temperature."""
    return [found for shard, found in seen["bank"].items() if shard.strategy == "sample"]


def _tokens_of_generation(config: ExperimentConfig, workdir: epath.Path, seen: list[Seen]) -> tuple[float, str]:
    """Return how long a solution is on average, and what says so."""
    if seen:
        return amounts.mean(seen, "tokens") / amounts.mean(seen, "rows"), "bank"
    path = shard_path(workdir / "labels", 0)
    if path.exists():
        solutions = read_shard(path, labels.SCHEMA, ["solution"])["solution"].to_pylist()
        if solutions:
            tokenizer = loader.tokenizer(workdir / "data")
            # The end mark is a token too.
            return 1 + statistics.fmean(map(len, tokenizer.encode_batch(solutions))), "labels"
    return float(config.sampler.max_tokens), BOUND


def _scoring_seconds(config: ExperimentConfig, folder: epath.Path | None, seen: list[Seen]) -> float | None:
    """Return the bank's seconds a question less those of sampling, which its records hold."""
    if not seen or folder is None:
        return None
    sampled = seconds = 0.0
    own = records.read(folder)
    for record in (own or {}, *records.parts(folder)):
        result = record.get("result") or {}
        sampled += result.get("sampled", 0)
        seconds += result.get("sampling_seconds", 0.0)
        if sampled and record is own:  # It sums up the parts.
            break
    found = amounts.mean(seen, "seconds") - seconds / sampled * config.sweep.samples if sampled else 0.0
    return found if found > 0 else None


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan in JSON's own types."""
    return {
        "part": str(plan.part),
        "cells": [dataclasses.asdict(cell) for cell in plan.cells],
        "from_bank": list(plan.from_bank),
        "whole": dataclasses.asdict(plan.whole),
        "left": dataclasses.asdict(plan.left),
        "known_seconds_left": plan.known_seconds,
        "time_unknown": list(plan.unknown),
        "temperatures_known": plan.temperatures_known,
    }


def lines(plan: Plan, probe: str) -> list[str]:
    """Return the plan as lines of text: a table of what is left, then its sum and what it rests on.

    Args:
        plan: The plan.
        probe: The command that makes the time of a stage known.
    """
    table: list[tuple[str, ...]] = [_HEADER]
    for cell in plan.cells:
        names = " = ".join(dict.fromkeys(name for name, _ in cell.answers))
        budgets = "/".join(str(n) for n in dict.fromkeys(n for _, n in cell.answers)) if cell.stage != "chains" else ""
        done = f"{cell.shards - cell.shards_left}/{cell.shards}"
        numbers = _numbers(cell.left, cell.shards_left > 0, "~" * (cell.seconds_from == _LIKE))
        table.append((cell.stage, names, budgets, str(cell.seeds), done, *numbers))
    done, shards = sum(c.shards - c.shards_left for c in plan.cells), sum(c.shards for c in plan.cells)
    table.append(("in all", "", "", "", f"{done}/{shards}", *_numbers(plan.left, done < shards)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join(
            word.ljust(w) if i < 2 else word.rjust(w) for i, (word, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    text.append("")
    if plan.from_bank:
        text.append(f"from the bank at no cost: {', '.join(plan.from_bank)}")
    return [line.rstrip() for line in text] + _notes(plan, probe)


def _notes(plan: Plan, probe: str) -> list[str]:
    left = [cell for cell in plan.cells if cell.shards_left]
    if not left:
        return ["nothing is left to compute"]
    sources = []
    for source in dict.fromkeys(cell.tokens_from for cell in left):
        stages = ", ".join(dict.fromkeys(cell.stage for cell in left if cell.tokens_from == source))
        basis = f"{source}, an upper bound," if source == BOUND else f"the rows of {source}"
        sources.append(f"{basis} for {stages}")
    notes = [f"tokens from {'; '.join(sources)}"]
    notes.append("FLOPs: 2 a parameter and token, prompts included")
    unknown = [stage for stage in plan.unknown if stage not in _READ_AGAIN]
    if plan.unknown:
        known = f"{duration(plan.known_seconds)} for the rest, and " if plan.known_seconds else ""
        tells = f"; `{probe}` runs one shard of each and tells" if unknown else " before the bank is complete"
        notes.append(f"time: {known}not known yet for {', '.join(plan.unknown)}{tells}")
    else:
        whose = "" if plan.part == WHOLE else f" for part {plan.part}"
        notes.append(f"time: about {duration(plan.known_seconds)}{whose} in one process like those so far")
    if not plan.temperatures_known:
        notes.append("the bank at all of sweep.temperatures: tune tells which are needed, at most these")
    if any(cell.seconds_from == _LIKE for cell in left):
        notes.append("~ time from other budgets of the search")
    return notes


def _numbers(amount: Amount, some: bool, mark: str = "") -> tuple[str, ...]:
    if not some:
        return ("", "", "", "", "", "done")
    counts = (amount.generations, amount.policy_tokens, amount.verifier_tokens)
    flops = (amount.policy_flops, amount.verifier_flops)
    time = "?" if amount.seconds is None else mark + duration(amount.seconds)
    generations, *tokens = map(_short, counts)
    return (amount.told + generations, *tokens, *map(_short, flops), time)


def _short(value: float) -> str:
    """Return a count with three digits and a letter, such as `12.3 M`."""
    for letter in ("", " k", " M", " G", " T", " P", " E"):
        if abs(value) < 999.5:
            return f"{value:.0f}" if not letter else f"{value:.3g}{letter}"
        value /= 1000
    return f"{value:.3g} Z"
