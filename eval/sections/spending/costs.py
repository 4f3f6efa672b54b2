"""Costs of a question under every strategy, in generations, tokens and FLOPs, and of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from ttcjax.config import ChainsConfig, ModelConfig, SweepConfig
from ttcjax.eval.collect import temperatures
from ttcjax.eval.records.answer_chains import pairs, strategy_name
from ttcjax.eval.records.bundle import COUNTED, Records
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.report.drawing import figures, markup
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.sections import accuracy, baseline
from ttcjax.eval.sections.revising import revisions as revising
from ttcjax.eval.stats.estimators import step_scores
from ttcjax.model import flops as compute
from ttcjax.search import registry, revision_verifiers
from ttcjax.search.contract import HostStrategy, Strategy
from ttcjax.search.revision_verifiers import Revising, aggregate_of
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.verifier import Verifier

EXECUTED = ("policy_flops", "verifier_flops")
"""Columns that `with_executed` adds."""


@dataclass(frozen=True)
class Cost:
    """Cost of a question on average.

    Attributes:
        generations: In the paper's unit.
        prompt_tokens: Read once a question by each model that is asked.
        policy_tokens: Drawn, rollouts not included.
        context_tokens: Answers in view that the revision model reads.
        lookahead_tokens: Of rollouts.
        verifier_tokens: Scored, the prompt not included.
        flops: Logical (`compute.inference`), with all parameters of each model.
        executed_flops: As the shapes of the models have it, where those are known (`compute.prefill`,
            `with_executed`).
        executed_ratio: Of those to `flops`.
    """

    generations: float
    prompt_tokens: float
    policy_tokens: float
    context_tokens: float | None = None
    lookahead_tokens: float | None = None
    verifier_tokens: float | None = None
    flops: float = 0.0
    executed_flops: float | None = None
    executed_ratio: float | None = None

    @property
    def known(self) -> dict[str, float]:
        """The fields that are known, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Training:
    """Cost of training a model.

    Attributes:
        params: Its parameters.
        tokens: That it saw.
        flops: Six a parameter and token.
        data_flops: Of sampling its data, where that was sampled and it is known how much.
    """

    params: int
    tokens: int
    flops: float
    data_flops: float | None = None


@dataclass(frozen=True)
class Costs:
    """Costs of strategies and training.

    Attributes:
        per_question: By strategy and budget.
        training: By model, as the path of its stage.
        greedy: Of one greedy answer, by model; no verifier is asked.
        revisions: Of every split of every budget.
    """

    per_question: dict[str, dict[int, Cost]]
    training: dict[str, Training]
    greedy: dict[str, Cost] = field(default_factory=dict)
    revisions: dict[str, Cost] = field(default_factory=dict)


def with_executed(
    table: pa.Table, prompts: Mapping[str, int], policy: ModelConfig, verifier: ModelConfig, judge: Verifier
) -> pa.Table:
    """Add the executed FLOPs of each row by policy and verifier, the reading of its prompt apart.

    Samples of the bank, and searches that come to best-of-N, are rows whose tokens stand where they are counted. Other
    searches count the tokens of a place of the batch, those of dropped beams too, and not where each stood. They are
    taken for one row, written one after the other: all beams of a question have taken as many steps, so what a place
    has drawn itself is about as long as what it goes on from. Tokens of rollouts are taken to stand where the row's
    own do, on average.

    Only how many of a row's own keys a token sees depends on this: 4 L H E FLOPs a key for a model of L layers with H
    heads of size E. For the models of `configs/procmath_tiny.py` the total could be 9% higher if every token were the
    last of the longest row, and 3% lower if every one were the first. Counted with the true places there, it differs
    by less than 0.01% for beam search and DVTS; with rollouts of one and three steps, which stand rather late in their
    rows, it is 0.2% and 0.5% higher.

    Args:
        table: Rows with `question` and `COUNTED`.
        prompts: Tokens of each question's prompt.
        policy: Shape of the policy.
        verifier: Shape of the verifier.
        judge: How it is asked.

    Returns:
        The table with the columns `EXECUTED`.
    """
    before = np.array([prompts[question] - 1 for question in table["question"].to_pylist()], np.int64)
    tokens, lookahead, read = (table[name].to_numpy().astype(np.int64) for name in COUNTED)
    # A row holds the prompt's last token too, which stands before its own and is read with them.
    written = _each(compute.decode, policy, tokens, before) * (1 + lookahead / np.maximum(tokens, 1))
    scored = _each(judge.flops, verifier, tokens + 1, before) * (read / (tokens + 1))
    for name, values in zip(EXECUTED, (written, scored), strict=True):
        table = table.append_column(name, pa.array(values, pa.float64()))
    return table


def _each(cost: Callable[..., float], config: ModelConfig, tokens: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the cost of each row; rows of the same lengths cost the same."""
    lengths, row = np.unique(np.stack([tokens, before]), axis=1, return_inverse=True)
    return np.array([cost(config, t, before=b) for t, b in lengths.T.tolist()], np.float64)[row.reshape(-1)]


@dataclass(frozen=True)
class RevisedBy:
    """Models behind the rows of strategies that revise, and what they had in view.

    Attributes:
        revising: What such strategies ask of the experiment.
        verifier: Whose scores the rows have.
        room: Tokens of the longest row of the revision model, less those of an answer.
    """

    revising: Revising
    verifier: str
    room: int

    def context(self, strategy: HostStrategy, cell: pa.Table, prompts: Mapping[str, int]) -> int:
        """Return the tokens in view of all answers of a cell, each read anew for the answer that it stands before.

        Args:
            strategy: That of the cell, `plain`.
            cell: Its rows, with `question`, `seed`, `sample`, `answer`, `step_scores` and `tokens`.
            prompts: Tokens of each question's prompt.
        """
        cell = cell.sort_by([(key, "ascending") for key in ("question", "seed", "sample")])
        read = np.array([answer is not None for answer in cell["answer"].to_pylist()])
        scores = aggregate(step_scores(cell), aggregate_of(self.verifier, self.revising.judges.aggregate))
        tokens, runs = cell["tokens"].to_pylist(), np.arange(cell.num_rows).reshape(-1, strategy.rows())
        names, total = cell["question"].to_pylist(), 0.0
        for run in runs:
            prompt, lengths = prompts[names[run[0]]], [tokens[i] for i in run]
            for view in strategy.before(np.where(read[run], 0, -1), scores[run]):
                total += self.revising.in_view([lengths[i] for i in view], prompt - 1, self.room - prompt)
        return round(total)


def of_strategies(
    settings: SweepConfig,
    bank: pa.Table,
    search: pa.Table,
    prompts: Mapping[str, int],
    trained: Mapping[str, Trained],
    sampled_at: Mapping[str, Mapping[int, float]],
    revised_by: RevisedBy | None = None,
) -> dict[str, dict[int, Cost]]:
    """Count what a question costs on average, by strategy and budget.

    A prompt is read once a question, whatever the budget, by the policy and, where it is asked, by the verifier; a
    majority does not ask it, unless it decides ties (`majority:ties=verifier`), and votes weighted by the policy's own
    likelihood (`by=likelihood`) do not: that is known from sampling. Strategies that revise are counted with the
    parameters of the revision model and of the verifier that selects, and with what was in view of each answer.

    Args:
        settings: `strategies` and `budgets` are used.
        bank: Rows of the bank, with `question`, `temperature` and `COUNTED`.
        search: Rows of all search strategies.
        prompts: Tokens of each question's prompt.
        trained: What `trained.models` returns.
        sampled_at: At which temperature each strategy samples, by strategy and budget.
        revised_by: Of strategies that revise, where there are any.
    """
    parameters = {name: trained[name]["params"] for name in ("policy", "prm")}
    questions = set(bank["question"].to_pylist())
    prompt = sum(prompts[q] for q in questions) / len(questions)
    policy, verifier = (trained[name].get("model") for name in ("policy", "prm"))
    judge = trained["prm"].get("judge")
    prefills: list[float] = []
    if policy is not None and verifier is not None and judge is not None:
        bank, search = (with_executed(table, prompts, policy, verifier, judge) for table in (bank, search))
        for shape in (policy, verifier):
            prefills.append(sum(compute.prefill(shape, prompts[q] - 1) for q in questions) / len(questions))

    def cost(table: pa.Table, runs: float, generations: float, verified: bool, reads: float = 1.0) -> Cost:
        policy, lookahead, verifier = (int(table[name].to_numpy().sum()) / runs for name in COUNTED)
        verifier *= verified
        read = compute.inference(parameters["prm"], verifier + prompt) if verified else 0.0
        flops = compute.inference(parameters["policy"], prompt + policy + lookahead) + read
        executed = None
        if prefills:
            asked = 1 + verified  # The policy, and the verifier after it.
            own = sum(float(table[name].to_numpy().sum()) for name in EXECUTED[:asked])
            executed = reads * sum(prefills[:asked]) + own / runs
        return Cost(
            generations=generations,
            prompt_tokens=prompt,
            policy_tokens=policy,
            lookahead_tokens=lookahead,
            verifier_tokens=verifier,
            flops=flops,
            executed_flops=executed,
            executed_ratio=None if executed is None else executed / flops,
        )

    def revised(table: pa.Table, strategy: Strategy, verified: bool) -> Cost:
        assert isinstance(strategy, HostStrategy)
        assert revised_by is not None
        runs, verifier = table.num_rows / strategy.rows(), revised_by.verifier
        written, _, read = (int(table[name].to_numpy().sum()) / runs for name in COUNTED)
        context = revised_by.context(strategy, table, prompts) / runs
        flops = compute.inference(trained["revision"]["params"], prompt + written + context)
        if verified:
            judge = trained[revision_verifiers.stage_of(verifier)]
            flops += compute.inference(judge["params"], prompt + read)
        return Cost(
            generations=strategy.cost(),
            prompt_tokens=prompt,
            policy_tokens=written,
            context_tokens=context,
            verifier_tokens=read * verified,
            flops=flops,
        )

    found: dict[str, dict[int, Cost]] = {}
    for strategy in settings.strategies:
        name = registry.named(strategy)
        found[strategy] = {}
        for n in settings.budgets:
            cell = search.filter((pc.field("strategy") == strategy) & (pc.field("n") == n))
            if name.revises:
                found[strategy][n] = revised(cell, name.at(n).plain(), name.asks_verifier)
            elif cell.num_rows and not name.is_best_of_n(n):
                pairs = pa.Table.from_arrays([cell["question"], cell["seed"]], ["q", "s"]).group_by(["q", "s"])
                rows = pairs.aggregate([([], "count_all")])["count_all"].to_numpy()
                plain, generations, reads = name.at(n).plain(), float(n), 1.0
                if isinstance(plain, HostStrategy) and plain.may_stop:
                    generations, reads = (
                        float(rows.mean()),
                        float(np.mean([plain.prompt_reads(k) for k in rows.tolist()])),
                    )
                found[strategy][n] = cost(cell, len(rows), generations, name.asks_verifier, reads)
            else:  # n samples of the bank: the mean of one, n times.
                held = temperatures.rows_at(bank, sampled_at[strategy][n])
                found[strategy][n] = cost(held, held.num_rows / n, n, name.asks_verifier)
    return found


def of_training(trained: Mapping[str, Trained]) -> dict[str, Training]:
    """Count what training each model took."""
    return {
        name: Training(
            params=model["params"],
            tokens=model["tokens_seen"],
            flops=compute.training(model["params"], model["tokens_seen"]),
            data_flops=model.get("data_flops"),
        )
        for name, model in trained.items()
    }


def greedy(
    answered: Mapping[str, pa.Table], prompts: Mapping[str, int], trained: Mapping[str, Trained]
) -> dict[str, Cost]:
    """Count what one greedy answer to a question costs on average, by the model that gives it.

    Args:
        answered: What `greedy.read` returns.
        prompts: Tokens of each question's prompt.
        trained: What `trained.models` returns.
    """
    found: dict[str, Cost] = {}
    for model, table in answered.items():
        prompt = float(np.mean([prompts[question] for question in table["question"].to_pylist()]))
        written = float(np.mean(table["tokens"].to_numpy()))
        flops = compute.inference(trained[model]["params"], prompt + written)
        found[model] = Cost(1, prompt, written, flops=flops)
    return found


def revisions(
    settings: ChainsConfig,
    restated: bool,
    table: pa.Table,
    prompts: Mapping[str, int],
    trained: Mapping[str, Trained],
    verifier: str,
) -> dict[str, Cost]:
    """Count what a question costs on average under every split of every budget.

    The prompt is read once a question by the revision model and by the verifier that selects. What stands between it
    and an answer (the answers in view, and the question again where it is restated) is read anew for every answer,
    by the verifier too where it is shown it.

    Args:
        settings: `lengths` and `budgets` are used.
        restated: Whether the question stands before an answer again, see `RevisionConfig.restate`.
        table: Rows of the chains stage.
        prompts: Tokens of each question's prompt.
        trained: What `trained.models` returns.
        verifier: Whose scores select, see `ttcjax.search.revision_verifiers.chosen`.
    """
    table = table.filter(pc.field("strategy") == "revise").sort_by([(k, "ascending") for k in ("question", "chain")])
    lengths = np.asarray(settings.lengths)
    shape = (-1, len(lengths), int(max(lengths)))
    names = sorted(set(table["question"].to_pylist()))
    at = np.searchsorted(names, table["question"].to_pylist()), *(table[k].to_numpy() for k in ("chain", "place"))

    def laid_out(column: str) -> np.ndarray:
        values = np.zeros((len(names), *shape[1:]), np.int64)
        values[at] = table[column].to_numpy()
        return values

    tokens_QCS, shown_QCS = laid_out("tokens"), laid_out("shown")
    before_QCS = np.concatenate([np.zeros_like(tokens_QCS[..., :1]), np.cumsum(tokens_QCS, axis=2)], axis=2)
    places = np.arange(shape[2])
    context_QCS = before_QCS[..., :-1] - np.take_along_axis(before_QCS, places - shown_QCS, axis=2)
    prompt_Q = np.array([prompts[name] for name in names])
    if restated:
        context_QCS = context_QCS + np.where(shown_QCS > 0, prompt_Q[:, None, None] - 1, 0)
    seen_QCS = context_QCS if verifier == "history" else np.zeros_like(context_QCS)
    prompt = float(prompt_Q.mean())
    parameters = trained["revision"]["params"], trained[revision_verifiers.stage_of(verifier)]["params"]

    def of_one_chain(values_QCS: np.ndarray, s: int) -> float:
        return float(values_QCS[:, lengths >= s, :s].sum(axis=2).mean())

    found: dict[str, Cost] = {}
    for n in settings.budgets:
        for s, p in pairs(n):
            written, context, seen = (p * of_one_chain(x, s) for x in (tokens_QCS, context_QCS, seen_QCS))
            policy = compute.inference(parameters[0], prompt + written + context)
            found[strategy_name(s, p)] = Cost(
                generations=n,
                prompt_tokens=prompt,
                policy_tokens=written,
                context_tokens=context,
                verifier_tokens=written + seen,
                flops=policy + compute.inference(parameters[1], prompt + written + seen),
            )
    return found


def figure(found: Costs, summary: Summary) -> Figure:
    """Draw accuracy against the FLOPs of a question, one line a strategy."""
    strategies, revised = summary.of(accuracy.SECTION).strategies, summary.get(revising.SECTION)
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        for i, (strategy, cells) in enumerate(found.per_question.items()):
            flops = [cell.flops for cell in cells.values()]
            figures.band(axes, flops, strategies[strategy].values(), i, figures.label(strategy))
        for i, (name, split) in enumerate((("revisions, parallel", "p"), ("revisions, one chain", "s"))):
            # Splits of which the other number is 1, budgets rising.
            splits = {
                revise: cell
                for revise, cell in found.revisions.items()
                if f"{split}={cell.generations:g}" in revise.partition(":")[2].split(",")
            }
            if splits and revised is not None:
                points = [revised.accuracy[revise]["hierarchical"] for revise in splits]
                flops = [cell.flops for cell in splits.values()]
                figures.band(axes, flops, points, len(found.per_question) + i, name)
        axes.set_xscale("log")
        axes.set(
            xlabel="FLOPs of a question (2 a parameter and token, the verifier's included)",
            ylabel="accuracy (% of questions)",
            title=figures.words(f"{summary.name}: accuracy by compute"),
        )
        figures.legend_below(drawn)
        return drawn


def csv_rows(found: Costs) -> Iterator[tuple[Any, ...]]:
    """Yield (strategy, budget, measure, value)."""
    by_strategy = {name: list(cells.items()) for name, cells in found.per_question.items()}
    by_strategy |= {name: [(round(cell.generations), cell)] for name, cell in found.revisions.items()}
    by_strategy |= {f"greedy:{model}": [(1, cell)] for model, cell in found.greedy.items()}
    for strategy, cells in by_strategy.items():
        for n, cell in cells:
            for measure, value in cell.known.items():
                yield strategy, n, measure, int(value) if measure == "generations" and value == int(value) else value


class Compute(Section[Costs]):
    """Costs of strategies and training, where the run trained the policy and its verifier."""

    name = "compute"
    result = Costs
    drawings = (
        Drawing[Costs](
            Entry(
                "accuracy_vs_flops",
                "Accuracy against compute",
                "The paper counts generations. Here every token is counted, the verifier's too, at two FLOPs a "
                "parameter.",
                "a policy and a verifier that this run trained",
                tables=("compute",),
            ),
            draw=figure,
            greedy=baseline.once(0),
        ),
    )
    tables = (Table[Costs]("compute", "strategy budget measure value", lambda found, _: csv_rows(found)),)

    def wanted(self, records: Records) -> bool:
        return records.trained is not None

    def compute(self, records: Records) -> Costs:
        trained, prompts, settings = records.trained, records.prompts, records.settings
        assert trained is not None
        revised: dict[str, Cost] = {}
        if settings.revision.enabled:
            restated, verifier = settings.revision.restate, records.splits.verifier
            revised = revisions(settings.chains, restated, records.answers, prompts, trained, verifier)
        sampled_at, revised_by = records.measured.temperatures, None
        if records.verifier is not None:
            shape = trained["revision"].get("model")
            longest = settings.revision.max_seq_len if shape is None else shape.max_seq_len
            longest = longest or settings.questions.max_seq_len
            room = longest - settings.questions.max_tokens
            revised_by = RevisedBy(records.revising, records.verifier, room)
        bank, search = records.bank, records.search
        return Costs(
            per_question=of_strategies(settings.sweep, bank, search, prompts, trained, sampled_at, revised_by),
            training=of_training(trained),
            greedy=greedy(records.answered, prompts, trained),
            revisions=revised,
        )

    def costs(self, found: Costs) -> str:
        budgets = list(next(iter(found.per_question.values())))
        lines = [
            [markup.text(figures.label(name)), *(f"{cell.flops:.3g}" for cell in cells.values())]
            for name, cells in found.per_question.items()
        ]
        lines += [
            [baseline.NAMES[model], f"{cell.flops:.3g}", *[""] * (len(budgets) - 1)]
            for model, cell in found.greedy.items()
        ]
        caption = "FLOPs of a question: two a parameter and token, the verifier's included"
        parts = [markup.table(["N =", *map(str, budgets)], lines, caption)]
        lines = [
            [
                markup.text(name),
                f"{model.params:,}",
                f"{model.tokens:,}",
                f"{model.flops:.3g}",
                "" if model.data_flops is None else f"{model.data_flops:.3g}",
            ]
            for name, model in found.training.items()
        ]
        columns = ["model", "parameters", "tokens", "FLOPs", "FLOPs of sampling its data"]
        parts.append(markup.table(columns, lines, "Training: six a parameter and token; sampling: two"))
        return "".join(parts)


SECTION = Compute()
