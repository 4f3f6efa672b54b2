"""What every strategy costs a question, in generations, tokens and FLOPs, and what training cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from matplotlib.figure import Figure

from ttcjax import compute
from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.errors import UserError
from ttcjax.eval import figures
from ttcjax.eval.estimators import StrategyName
from ttcjax.text import tokenizer as tokenizers

COLUMNS = ("tokens", "lookahead_tokens", "verifier_tokens")
"""Columns of result rows that are counted."""


def models(workdir: epath.Path) -> dict[str, dict[str, int]] | None:
    """Return `params` and `tokens_seen` of every model that a run trained, by the path of its stage.

    Returns:
        The models; `None` where the policy or its verifier was not trained here.

    Raises:
        UserError: A stage's record is corrupt.
    """
    found: dict[str, dict[str, int]] = {}
    for path in sorted(workdir.glob("*/stage.json"), key=str):
        if path.parent.suffix:  # .partial and .old-* folders
            continue
        try:
            result = json.loads(path.read_text()).get("result") or {}
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is corrupt: delete {path.parent} and run again") from error
        nested = {f"/{key}": value for key, value in result.items() if isinstance(value, dict)}
        for name, value in {"": result, **nested}.items():
            if "params" in value and "tokens_seen" in value:
                found[path.parent.name + name] = {key: value[key] for key in ("params", "tokens_seen")}
    return found if "policy" in found and "prm" in found else None


def prompt_tokens(config: ExperimentConfig, workdir: epath.Path) -> dict[str, int]:
    """Return the tokens of every test question's prompt, the begin mark included."""
    task, splits = loader.load(config.data, workdir / "data")
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    examples = list(splits.test)
    encoded = tokenizer.encode_batch([task.prompt(e.question) for e in examples])
    return {e.id: 1 + len(ids) for e, ids in zip(examples, encoded, strict=True)}


def summarise(
    config: ExperimentConfig,
    bank: pa.Table,
    search: pa.Table,
    prompts: Mapping[str, int],
    trained: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """Count what a question costs on average.

    A prompt is read once a question, whatever the budget, by the policy and, where it is asked, by the verifier.
    Majority asks it too, for ties, unless told otherwise (`majority:ties=first`). FLOPs are logical
    (`compute.inference`), with all parameters of each model.

    Args:
        config: The experiment.
        bank: Rows of the bank, with `COLUMNS`.
        search: Rows of all search strategies.
        prompts: Tokens of each question's prompt.
        trained: What `models` returns.

    Returns:
        `per_question[strategy][n]` with `generations`, `prompt_tokens`, `policy_tokens` (rollouts not included),
        `lookahead_tokens`, `verifier_tokens` (prompt not included) and `flops`; and `training[model]` with `params`,
        `tokens` and `flops`.
    """
    parameters = {name: trained[name]["params"] for name in ("policy", "prm")}
    prompt = sum(prompts[q] for q in set(bank["question"].to_pylist())) / len(set(bank["question"].to_pylist()))

    def cost(table: pa.Table, runs: float, generations: float, verified: bool) -> dict[str, float]:
        policy, lookahead, verifier = ((pc.sum(table[name]).as_py() or 0) / runs for name in COLUMNS)
        verifier *= verified
        read = compute.inference(parameters["prm"], verifier + prompt) if verified else 0.0
        return {
            "generations": generations,
            "prompt_tokens": prompt,
            "policy_tokens": policy,
            "lookahead_tokens": lookahead,
            "verifier_tokens": verifier,
            "flops": compute.inference(parameters["policy"], prompt + policy + lookahead) + read,
        }

    per_question: dict[str, dict[str, dict[str, float]]] = {}
    for strategy in config.sweep.strategies:
        name = StrategyName.parse(strategy)
        per_question[strategy] = {}
        for n in config.sweep.budgets:
            cell = search.filter((pc.field("strategy") == strategy) & (pc.field("n") == n))
            if cell.num_rows:
                runs = pa.Table.from_arrays([cell["question"], cell["seed"]], ["q", "s"]).group_by(["q", "s"])
                found = cost(cell, runs.aggregate([]).num_rows, n, verified=True)
            else:  # n samples of the bank: the mean of one, n times.
                alone = name.kind == "majority" and name.ties == "first"
                found = cost(bank, bank.num_rows / n, n, verified=not alone)
            per_question[strategy][str(n)] = found
    return {
        "per_question": per_question,
        "training": {
            name: {
                "params": model["params"],
                "tokens": model["tokens_seen"],
                "flops": compute.training(model["params"], model["tokens_seen"]),
            }
            for name, model in trained.items()
        },
    }


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
        axes.set_xscale("log")
        axes.set(
            xlabel="FLOPs of a question (2 a parameter and token, the verifier's included)",
            ylabel="accuracy (% of questions)",
            title=f"{summary['name']}: accuracy by compute",
        )
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        return drawn


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (strategy, budget, measure, value)."""
    return [
        (strategy, n, measure, value)
        for strategy, cells in summary["compute"]["per_question"].items()
        for n, cell in cells.items()
        for measure, value in cell.items()
    ]
