"""The bank stage: base samples of every test question with the verifier's step scores, written once.

Majority, best-of-N and every other selector among independent samples are computed from it afterwards, at any
budget up to its size. It has samples at the sampler's temperature and at those that strategies name
(`ttcjax.eval.collect.temperatures`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
from etils import epath

from ttcjax.config import SPEED_ONLY, ExperimentConfig, Questions, SamplerConfig, config_hash
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.engine import Engine, Solution
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts, temperatures
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.temperatures import BankSamples, Chosen, Grid
from ttcjax.eval.collect.validated import Choice, chosen, known
from ttcjax.eval.records import sample_rows
from ttcjax.runtime import records
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product

SCHEMA = sample_rows.SCHEMA
"""Columns of the shards."""


@dataclass(frozen=True)
class Settings:
    """Settings of the bank stage."""

    questions: Questions
    sampler: SamplerConfig
    samples: BankSamples
    choice: Choice | None
    """How temperatures are chosen on validation questions, where a strategy asks for that."""
    seed: int
    shard_questions: int
    samples_from: str | None = field(default=None, metadata=SPEED_ONLY)
    """Folder of a finished bank whose samples are taken instead of sampling anew."""
    samples_content: str | None = None
    """Hash of that bank."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        sweep = config.sweep
        samples = BankSamples.of(Grid.of(config), sweep.samples, sweep.judged)
        return cls(
            config.test_questions,
            config.sampler.of_solutions(),
            samples,
            Choice.of(config) if samples.validated else None,
            sweep.seed,
            sweep.shard_questions,
            sweep.samples_from,
            sweep.samples_content,
        )


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards, those at the sampler's temperature first."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test), known(settings.choice, inputs))


def shards_of(settings: Settings, questions: int, chosen: Chosen | None) -> list[Shard]:
    """Return the shards of so many questions.

    Args:
        settings: Of the bank.
        questions: How many there are.
        chosen: As for `BankSamples.at`.
    """
    own = settings.sampler.temperature
    return [
        shard
        for temperature, samples in settings.samples.at(chosen).items()
        for name in ("sample" if temperature == own else f"sample:temperature={float(temperature)!r}",)
        for shard in shards_lib.cut(
            questions,
            settings.shard_questions,
            strategy=name,
            answers=((name, samples),),
            seed=temperatures.stream(settings.seed, temperature, own),
            generations=samples,
            cells=(name.partition(":")[2].replace("=", "-"),),
        )
    ]


def _temperature(settings: Settings, shard: Shard) -> float:
    return float(shard.strategy.partition("=")[2] or settings.sampler.temperature)


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question of a cell takes; samples that are taken from another bank are read and judged alone."""
    policy, verifier = amounts.of_samples(own, generations, units)
    return Spent(policy, verifier, generations) if settings.samples_from is None else Spent(0.0, verifier, 0)


def _work(settings: Settings) -> str:
    questions = settings.questions.num_test
    first, *others = settings.samples.at(None).values()
    asked = f"{product(questions, first)} solutions"
    if others:
        most = "at most " * bool(settings.samples.validated)
        plural = "s" * (len(others) > 1)
        asked += f", {most}{product(questions, sum(others))} at {len(others)} other temperature{plural}"
    return asked


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Sample and score solutions of every test question at every temperature that is asked for; finished shards are
    kept.

    Returns:
        `questions`, `solutions`, `shards`, and of the shards made by this call `sampled` and `sampling_seconds`, from
        which solutions a second follow (the first batch compiles).

    Raises:
        UserError: The bank that samples are to be taken from has not got them, see `read_samples`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    examples, sampled, sampling = splits.test[:], 0, 0.0
    every = shards_of(settings, len(examples), chosen(settings.choice, inputs))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    engine = load_engine(inputs, settings.sampler, steps=task.steps)
    earlier: dict[str, dict[str, list[Solution]]] = {}
    if settings.samples_from is not None:
        for shard in {shard.strategy: shard for shard in todo}.values():
            earlier[shard.strategy] = read_samples(
                epath.Path(settings.samples_from),
                [e.id for e in examples],
                shard.generations,
                engine,
                content=settings.samples_content,
                temperature=_temperature(settings, shard),
            )
    whole, left = (sum(2 * s.generations * s.questions for s in some) for some in (mine, todo))
    with progress(whole, "bank: solutions sampled and scored") as bar:
        bar.skip(whole - left)
        engine.on_batch = bar.update
        for shard in todo:
            seconds = write(settings, task, examples, engine, shard, sink.folder, earlier.get(shard.strategy))
            if shard.strategy not in earlier:
                sampled += shard.questions * shard.generations
                sampling += seconds
    sink.lists(*shards_lib.names(every))
    return {
        "questions": len(examples),
        "solutions": sum(shard.questions * shard.generations for shard in every),
        "shards": len(every),
        "sampled": sampled,
        "sampling_seconds": sampling,
    }


def write(
    settings: Settings,
    task: Task,
    examples: Sequence[Example],
    engine: Engine,
    shard: Shard,
    out: epath.Path,
    earlier: Mapping[str, list[Solution]] | None = None,
) -> float:
    """Make one shard, and return the seconds in which its solutions were sampled.

    Args:
        settings: Of the bank.
        task: Of the questions.
        examples: All of them.
        engine: Samples and scores.
        shard: Which of the questions, and how many samples at which temperature.
        out: The folder.
        earlier: By question, solutions to be scored in place of new ones.
    """
    begin = time.perf_counter()
    asked = shard.take(examples)
    prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked]
    temperature = _temperature(settings, shard)
    if earlier is None:
        found = engine.sample(prompts, shard.generations, shard.seed, temperature=temperature)
    else:
        found = [earlier[e.id][: shard.generations] for e in asked]
        engine.on_batch(len(asked) * shard.generations)
    sampling = time.perf_counter() - begin
    found = engine.score(prompts, found)
    seconds = (time.perf_counter() - begin) / max(1, len(asked) * shard.generations)
    table = result_rows(
        task, asked, found, strategy="sample", n=0, seed=shard.seed, temperature=temperature, seconds=seconds
    )
    for path in shard.paths(out):
        write_shard(path, table, SCHEMA)
    return sampling


def solutions_of(engine: Engine, written: Sequence[Mapping[str, Any]]) -> list[Solution]:
    """Return the solutions of rows, without scores.

    Texts are read into tokens again, which need not be those that were sampled where a text can be written in several
    ways.

    Args:
        engine: Its tokenizer reads the texts.
        written: Rows with `text`, `finished`, `tokens` and `logprob`.
    """
    end = (engine.tokenizer.eos_id,)
    return [
        Solution(
            (*ids, *(end if row["finished"] else ())),
            row["text"],
            row["finished"],
            row["logprob"],
            tokens_sampled=row["tokens"],
        )
        for row, ids in zip(written, engine.tokenizer.encode_batch([row["text"] for row in written]), strict=True)
    ]


def read_samples(
    folder: epath.Path,
    questions: Sequence[str],
    samples: int,
    engine: Engine,
    content: str | None = None,
    temperature: float = 1.0,
) -> dict[str, list[Solution]]:
    """Return the solutions of a finished bank at a temperature, in the order they were sampled, without scores.

    Args:
        folder: Of the bank.
        questions: Ids that are wanted.
        samples: Of each question, the first ones.
        engine: Its tokenizer reads the texts.
        content: `sweep.samples_content` of the bank, where it is known.
        temperature: At which they were sampled.

    Raises:
        UserError: A shard is missing or damaged, the bank lacks a sample that is wanted, or it is another.
    """
    record = records.read_complete(folder)
    if content is not None and (record is None or config_hash(records.hashes(record)) != content):
        raise UserError(f"the bank {folder} has changed since this run began: run the same command again")
    columns = ("question", "temperature", "sample", "text", "finished", "tokens", "logprob")
    table = temperatures.rows_at(sample_rows.read_folder(folder, columns), temperature)
    table = table.filter(pc.field("sample") < samples).sort_by([("question", "ascending"), ("sample", "ascending")])
    found: dict[str, list[Solution]] = {question: [] for question in questions}
    written = table.to_pylist()
    for row, solution in zip(written, solutions_of(engine, written), strict=True):
        found.setdefault(row["question"], []).append(solution)
    short = [question for question in questions if len(found[question]) < samples]
    if short:
        raise UserError(
            f"{folder} has {len(found[short[0]])} samples of {short[0]} at temperature {temperature:g}, and {samples} "
            "are wanted: lower sweep.samples, or take a bank of the same questions"
        )
    return found


def result_rows(
    task: Task,
    examples: Sequence[Example],
    found: Sequence[Sequence[Solution]],
    *,
    strategy: str,
    n: int,
    seed: int,
    temperature: float,
    seconds: float,
    answers: Sequence[Sequence[str | None]] | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of `rows.SCHEMA` for the solutions of some questions.

    Args:
        task: Reads and grades their answers.
        examples: The questions.
        found: Their solutions.
        strategy: What found them; this and the following stand in every row.
        n: Its budget.
        seed: Its seed.
        temperature: Of sampling.
        seconds: A row's share.
        answers: Of the solutions, where they have been read already.
    """
    table = []
    for place, (example, solutions) in enumerate(zip(examples, found, strict=True)):
        for index, solution in enumerate(solutions):
            if answers is not None:
                answer = answers[place][index]
            else:
                answer = task.extract(solution.text) if solution.finished else None
            lines = task.steps.split(solution.text)[: len(solution.step_scores)]
            table.append(
                {
                    "question": example.id,
                    "level": example.level,
                    "subject": example.subject,
                    "gold": example.answer,
                    "strategy": strategy,
                    "n": n,
                    "seed": seed,
                    "temperature": float(temperature),
                    "sample": index,
                    "text": solution.text,
                    "answer": answer,
                    "correct": task.grade(answer, example.answer),
                    "finished": solution.finished,
                    "step_scores": list(solution.step_scores),
                    "step_truth": task.check_steps(example, lines),
                    "tokens": solution.tokens_sampled,
                    "lookahead_tokens": solution.tokens_lookahead,
                    "verifier_tokens": solution.tokens_verified,
                    "logprob": solution.logprob,
                    "seconds": seconds,
                }
            )
    return table


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "policy", "prm", "tune"),
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=_work,
    spends=spends,
)
