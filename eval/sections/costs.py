"""What every strategy costs a question, in generations, tokens and FLOPs, and what training cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from matplotlib.figure import Figure

from ttcjax.config import ExperimentConfig, ModelConfig, Questions, from_dict
from ttcjax.data import loader
from ttcjax.eval.collect import temperatures
from ttcjax.eval.report import figures
from ttcjax.eval.sections.revisions import pairs, strategy_name
from ttcjax.model import flops as compute
from ttcjax.runtime import records
from ttcjax.search import registry, revision_verifiers
from ttcjax.search.contract import HostStrategy
from ttcjax.verify import formats
from ttcjax.verify.verifier import Verifier

COLUMNS = ("tokens", "lookahead_tokens", "verifier_tokens")
"""Columns of result rows that are counted."""


class Trained(TypedDict):
    """A model that a run trained."""

    params: int
    tokens_seen: int
    model: NotRequired[ModelConfig]
    """Its shape; not there where the checkpoint has been deleted."""
    judge: NotRequired[Verifier]
    """How it is asked, where it is a verifier."""
    data_flops: NotRequired[float]
    """Of sampling what it was trained on, logical; not there where nothing was sampled, or it is not known how much."""


SAMPLED = {
    "prm": (("labels", "policy"),),
    "base_orm": (("labels", "policy"),),
    "revision": (("trajectories", "policy"), ("revision", "revision")),
    "orm": (("attempts", "revision"),),
}
"""Of the stages that train on samples: the stages that made these, and the model that they were sampled from. With
ReST^EM the revision stage samples too."""


def models(workdir: epath.Path) -> dict[str, Trained] | None:
    """Return every model that a run trained, by the path of its stage.

    Returns:
        The models; `None` where the policy or its verifier was not trained here.

    Raises:
        UserError: A stage's record is corrupt, or a checkpoint's.
    """
    found: dict[str, Trained] = {}
    results = {stage: record.get("result") or {} for stage, record in records.of_stages(workdir).items()}
    for stage, result in results.items():
        nested = {f"/{key}": value for key, value in result.items() if isinstance(value, dict)}
        for name, value in {"": result, **nested}.items():
            if "params" in value and "tokens_seen" in value:
                trained = Trained(params=value["params"], tokens_seen=value["tokens_seen"])
                metadata = workdir / f"{stage}{name}" / "best" / "metadata.json"
                if metadata.exists():
                    about = _metadata(metadata)
                    trained["model"] = from_dict(ModelConfig, about["model"])
                    if judge := formats.read(about):
                        trained["judge"] = judge
                found[stage + name] = trained
    for name, model in found.items():
        if name.count("/") and not name.startswith("orm/"):
            continue  # The first of two trainings of a stage, whose data is the stage's.
        flops = [
            compute.inference(found[sampler]["params"], tokens)
            for made, sampler in SAMPLED.get(name.partition("/")[0], ())
            if sampler in found and (tokens := results.get(made, {}).get("sampled_tokens")) is not None
        ]
        if flops:
            model["data_flops"] = sum(flops)
    return found if "policy" in found and "prm" in found else None


def _metadata(path: epath.Path) -> dict[str, Any]:
    """Return what a model's checkpoint says of it; its shape is under `model`."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found["model"], dict):
            raise ValueError("model is no table")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise records.damaged(path, "it is no table of JSON") from error


def prompt_tokens(questions: Questions, folder: epath.Path) -> dict[str, int]:
    """Return the tokens of every test question's prompt, the begin mark included.

    Args:
        questions: What can be asked.
        folder: Of the data stage.
    """
    task, splits = loader.askable(questions, folder)
    tokenizer = loader.tokenizer(folder)
    examples = list(splits.test)
    encoded = tokenizer.encode_batch([task.prompt(e.question) for e in examples])
    return {e.id: 1 + len(ids) for e, ids in zip(examples, encoded, strict=True)}


EXECUTED = ("policy_flops", "verifier_flops")
"""Columns that `with_executed` adds."""


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
        table: Rows with `question` and `COLUMNS`.
        prompts: Tokens of each question's prompt.
        policy: Shape of the policy.
        verifier: Shape of the verifier.
        judge: How it is asked.

    Returns:
        The table with the columns `EXECUTED`.
    """
    before = np.array([prompts[question] - 1 for question in table["question"].to_pylist()], np.int64)
    tokens, lookahead, read = (table[name].to_numpy().astype(np.int64) for name in COLUMNS)
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


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    prompts: Mapping[str, int],
    trained: Mapping[str, Trained],
    chosen: temperatures.Chosen | None = None,
) -> dict[str, Any]:
    """Count what a question costs on average.

    A prompt is read once a question, whatever the budget, by the policy and, where it is asked, by the verifier; a
    majority does not ask it, unless it decides ties (`majority:ties=verifier`), and votes weighted by the policy's own
    likelihood (`by=likelihood`) do not: that is known from sampling. FLOPs are logical
    (`compute.inference`), with all parameters of each model, and executed (`compute.prefill`, `with_executed`), where
    the shapes of the models are known.

    Args:
        config: The experiment.
        bank: Rows of the bank, with `question`, `temperature` and `COLUMNS`.
        search: Rows of all search strategies.
        prompts: Tokens of each question's prompt.
        trained: What `models` returns.
        chosen: What won on validation, where a strategy asks for it.

    Returns:
        `per_question[strategy][n]` with `generations`, `prompt_tokens`, `policy_tokens` (rollouts not included),
        `lookahead_tokens`, `verifier_tokens` (prompt not included), `flops`, and where shapes are known
        `executed_flops` and `executed_ratio` (of those to `flops`); and `training[model]` with `params`, `tokens`,
        `flops`, and where its data was sampled `data_flops` (`Trained`).
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

    def cost(table: pa.Table, runs: float, generations: float, verified: bool, reads: float = 1.0) -> dict[str, float]:
        policy, lookahead, verifier = (int(table[name].to_numpy().sum()) / runs for name in COLUMNS)
        verifier *= verified
        read = compute.inference(parameters["prm"], verifier + prompt) if verified else 0.0
        found = {
            "generations": generations,
            "prompt_tokens": prompt,
            "policy_tokens": policy,
            "lookahead_tokens": lookahead,
            "verifier_tokens": verifier,
            "flops": compute.inference(parameters["policy"], prompt + policy + lookahead) + read,
        }
        if prefills:
            asked = 1 + verified  # The policy, and the verifier after it.
            own = sum(float(table[name].to_numpy().sum()) for name in EXECUTED[:asked])
            found["executed_flops"] = reads * sum(prefills[:asked]) + own / runs
            found["executed_ratio"] = found["executed_flops"] / found["flops"]
        return found

    per_question: dict[str, dict[str, dict[str, float]]] = {}
    for strategy in config.sweep.strategies:
        name = registry.named(strategy)
        per_question[strategy] = {}
        for n in config.sweep.budgets:
            cell = search.filter((pc.field("strategy") == strategy) & (pc.field("n") == n))
            if cell.num_rows and not name.is_best_of_n(n):
                pairs = pa.Table.from_arrays([cell["question"], cell["seed"]], ["q", "s"]).group_by(["q", "s"])
                rows = pairs.aggregate([([], "count_all")])["count_all"].to_numpy()
                plain, generations, reads = name.at(n).plain(), float(n), 1.0
                if isinstance(plain, HostStrategy):  # which may leave samples undrawn
                    generations, reads = (
                        float(rows.mean()),
                        float(np.mean([plain.prompt_reads(k) for k in rows.tolist()])),
                    )
                found = cost(cell, len(rows), generations, name.selector.asks_verifier, reads)
            else:  # n samples of the bank: the mean of one, n times.
                [temperature] = temperatures.Grid.of(config).possible(strategy, n, chosen)
                held = temperatures.rows_at(bank, temperature)
                found = cost(held, held.num_rows / n, n, name.selector.asks_verifier)
            per_question[strategy][str(n)] = found
    return {
        "per_question": per_question,
        "training": {
            name: {
                "params": model["params"],
                "tokens": model["tokens_seen"],
                "flops": compute.training(model["params"], model["tokens_seen"]),
                **{key: model[key] for key in ("data_flops",) if key in model},
            }
            for name, model in trained.items()
        },
    }


def greedy(
    answered: Mapping[str, pa.Table], prompts: Mapping[str, int], trained: Mapping[str, Trained]
) -> dict[str, dict[str, float]]:
    """Count what one greedy answer to a question costs on average, by the model that gives it.

    Args:
        answered: What `greedy.read` returns.
        prompts: Tokens of each question's prompt.
        trained: What `models` returns.

    Returns:
        By model `generations`, `prompt_tokens`, `policy_tokens` and `flops` as in `summarise`; no verifier is asked.
    """
    found: dict[str, dict[str, float]] = {}
    for model, table in answered.items():
        prompt = float(np.mean([prompts[question] for question in table["question"].to_pylist()]))
        written = float(np.mean(table["tokens"].to_numpy()))
        flops = compute.inference(trained[model]["params"], prompt + written)
        found[model] = {"generations": 1, "prompt_tokens": prompt, "policy_tokens": written, "flops": flops}
    return found


def revisions(
    config: ExperimentConfig,
    table: pa.Table,
    prompts: Mapping[str, int],
    trained: Mapping[str, Trained],
    verifier: str,
) -> dict[str, dict[str, float]]:
    """Count what a question costs on average under every split of every budget.

    The prompt is read once a question by the revision model and by the verifier that selects. What stands between it
    and an answer (the answers in view, and the question again where it is restated) is read anew for every answer,
    by the verifier too where it is shown it.

    Args:
        config: The experiment.
        table: Rows of the chains stage.
        prompts: Tokens of each question's prompt.
        trained: What `models` returns.
        verifier: Whose scores select, see `ttcjax.search.revision_verifiers.chosen`.

    Returns:
        By split `generations`, `prompt_tokens`, `policy_tokens` and `flops` as in `summarise`, `context_tokens`: those
        in view that the revision model reads, and `verifier_tokens`, those in view among them where it reads them.
    """
    table = table.filter(pc.field("strategy") == "revise").sort_by([(k, "ascending") for k in ("question", "chain")])
    lengths = np.asarray(config.chains.lengths)
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
    if config.revision.restate:
        context_QCS = context_QCS + np.where(shown_QCS > 0, prompt_Q[:, None, None] - 1, 0)
    seen_QCS = context_QCS if verifier == "history" else np.zeros_like(context_QCS)
    prompt = float(prompt_Q.mean())
    parameters = trained["revision"]["params"], trained[revision_verifiers.stage_of(verifier)]["params"]

    def of_one_chain(values_QCS: np.ndarray, s: int) -> float:
        return float(values_QCS[:, lengths >= s, :s].sum(axis=2).mean())

    found: dict[str, dict[str, float]] = {}
    for n in config.chains.budgets:
        for s, p in pairs(n):
            written, context, seen = (p * of_one_chain(x, s) for x in (tokens_QCS, context_QCS, seen_QCS))
            policy = compute.inference(parameters[0], prompt + written + context)
            found[strategy_name(s, p)] = {
                "generations": n,
                "prompt_tokens": prompt,
                "policy_tokens": written,
                "context_tokens": context,
                "verifier_tokens": written + seen,
                "flops": policy + compute.inference(parameters[1], prompt + written + seen),
            }
    return found


def figure(summary: dict[str, Any]) -> Figure:
    """Draw accuracy against the FLOPs of a question, one line a strategy.

    Args:
        summary: The whole summary, with JSON's own types.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        for i, (strategy, cells) in enumerate(summary["compute"]["per_question"].items()):
            flops = [cell["flops"] for cell in cells.values()]
            figures.band(axes, flops, summary["accuracy"][strategy].values(), i, figures.label(strategy))
        for i, (name, split) in enumerate((("revisions, parallel", "p"), ("revisions, one chain", "s"))):
            # Splits of which the other number is 1, budgets rising.
            splits = {
                revise: cell
                for revise, cell in summary["compute"].get("revisions", {}).items()
                if f"{split}={cell['generations']}" in revise.partition(":")[2].split(",")
            }
            if splits:
                points = [summary["accuracy"][revise]["hierarchical"] for revise in splits]
                flops = [cell["flops"] for cell in splits.values()]
                figures.band(axes, flops, points, len(summary["compute"]["per_question"]) + i, name)
        axes.set_xscale("log")
        axes.set(
            xlabel="FLOPs of a question (2 a parameter and token, the verifier's included)",
            ylabel="accuracy (% of questions)",
            title=figures.words(f"{summary['name']}: accuracy by compute"),
        )
        figures.legend_below(drawn)
        return drawn


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (strategy, budget, measure, value)."""
    by_strategy = {name: list(cells.items()) for name, cells in summary["compute"]["per_question"].items()}
    by_strategy |= {
        name: [(cell["generations"], cell)] for name, cell in summary["compute"].get("revisions", {}).items()
    }
    by_strategy |= {f"greedy:{model}": [("1", cell)] for model, cell in summary["compute"].get("greedy", {}).items()}
    return [
        (strategy, n, measure, value)
        for strategy, cells in by_strategy.items()
        for n, cell in cells
        for measure, value in cell.items()
    ]
