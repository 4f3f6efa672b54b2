"""`ttcjax bench`: arguments, the table, and the JSON file."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ttcjax.config.base import require_list
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_remote, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from ttcjax.bench.measure import Row

_EPILOG = """\
examples:
  ttcjax bench sample --peer transformers --json sample.json
  ttcjax bench sample --curves --tokens 32              N = 1..256 after prompts of 128..2048 tokens
  ttcjax bench queue                                    rows that are refilled against static batches
  ttcjax bench search --peer transformers               beam search with a verifier of the policy's size
  ttcjax bench verify --peer transformers               the verifier's reading, round by round
  ttcjax bench compile                                  every program a sweep compiles, and that no other follows
  ttcjax bench flops --shape llama-1b                   FLOPs of a question with the prompt shared, and read again

Weights are random and the same for both sides; no stop token ends a row. Rates are tokens a second, each side's best
of runs that alternate between them after a warm-up each; loading and compiling are apart. `--peer transformers`
needs `pip install 'ttcjax[bench]'`. `plain` is the library as a user types it first, `careful` what an expert makes
of it: the prompt read once, caches kept.
"""


CURVES = ((1, 4, 16, 64, 256), (128, 512, 2048))
"""Samples, and prompt lengths in tokens."""


def add_arguments(parser: Any) -> None:
    """Add the benchmarks as sub-commands of `ttcjax bench`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    kinds = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)

    def add(name: str, summary: str, **numbers: int) -> Any:
        kind = kinds.add_parser(name, help=summary, description=summary[0].upper() + summary[1:], formatter_class=raw)
        kind.set_defaults(bench=name)
        for number, default in numbers.items():
            kind.add_argument(f"--{number}", type=_positive, default=default, help=f"{_MEANING[number]} (%(default)s)")
        return kind

    def compared(kind: Any, peer: bool = True) -> None:
        kind.add_argument("--shape", default="qwen2-40m", help="tiny, qwen2-40m or llama-1b (%(default)s)")
        kind.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
        if peer:
            kind.add_argument("--peer", choices=("transformers",), help="measure this beside ours")
        kind.add_argument("--repeats", type=_positive, default=3, help="measured runs of each side (%(default)s)")
        kind.add_argument(
            "--devices", type=_positive, default=1, help="CPU devices that ours is split over (%(default)s)"
        )
        kind.add_argument("--seed", type=_seed, default=0)
        kind.add_argument("--json", metavar="FILE", help="write the rows there too")

    kind = add("sample", "many solutions of one prompt", n=64, prompt=512, tokens=128)
    kind.add_argument("--curves", action="store_true", help="over N = 1..256 and prompts of 128..2048 tokens instead")
    kind.add_argument("--figure", metavar="FILE", help="with --curves: draw them there, PNG or SVG")
    compared(kind)
    compared(
        add("queue", "requests of unequal lengths", requests=512, width=64, mean=32, most=256, prompt=32), peer=False
    )
    compared(add("search", "beam search", questions=8, n=16, width=4, rounds=12, step=16, prompt=128))
    compared(add("verify", "the verifier's reading in a search", n=16, step=16, prompt=128))
    kind = add("compile", "what a sweep compiles", questions=12, rows=64)
    kind.add_argument("--shape", default="tiny", help="of policy and verifier (%(default)s)")
    kind.add_argument("--budgets", type=_positive, nargs="+", default=[4, 16, 64], metavar="N")
    kind.add_argument("--strategies", nargs="+", default=["best_of_n", "beam:width=4", "lookahead:width=4,k=1"])
    kind.add_argument("--prompts", type=_positive, nargs=2, default=[8, 100], metavar=("FROM", "TO"))
    kind.add_argument("--json", metavar="FILE", help="write the list there too")
    kind = add("flops", "FLOPs of a question", n=64, width=4, prompt=1000, tokens=128, step=16)
    kind.epilog = (
        "logical: 2 a parameter and token. executed: by the shapes of policy and verifier, which are the same.\n"
        "again: every sample reads the prompt anew, and in a search every step of every beam prompt and steps before."
    )
    kind.add_argument("--shape", default="qwen2-40m", help="of policy and verifier (%(default)s)")
    kind.add_argument("--json", metavar="FILE", help="write the numbers there too")


_MEANING = {
    "n": "samples or beams of a question",
    "prompt": "tokens of a prompt",
    "tokens": "new tokens of a sample",
    "requests": "samples to draw, each of a question of its own",
    "width": "beam width, on which the FLOPs of a search do not depend; for the queue, rows under way at once",
    "mean": "mean length of a sample",
    "most": "longest sample",
    "questions": "questions at once",
    "rounds": "rounds of the search",
    "step": "tokens of a step",
    "rows": "rows under way at once on a device",
}


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {2**31 - 1}, not {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """Run one benchmark and print its table.

    Raises:
        UserError: The peer is not installed, a side failed, or the sides do not agree on the same weights.
    """
    for name in ("json", "figure"):
        if getattr(args, name, None) is not None:
            path = resolve(getattr(args, name), f"--{name}", kind="file")
            if is_remote(path) or not os.access(path.parent, os.W_OK):
                raise UserError(f"cannot write {path}: name a file in a local folder that is there")
            setattr(args, name, os.fspath(path))
    if args.bench == "compile":
        require_list(args.budgets, "--budgets")
        require_list(args.strategies, "--strategies")
        _compile(args)
        return
    if getattr(args, "figure", None) and not args.curves:
        raise UserError("--figure draws curves: add --curves")
    if getattr(args, "prompt", 2) < 2:
        raise UserError("a prompt needs at least 2 tokens: raise --prompt")
    if args.bench == "flops":
        _flops(args)
        return
    from ttcjax.bench import measure as bench  # imports jax

    options = bench.Options(args.shape, args.dtype, args.repeats, getattr(args, "peer", None), args.devices, args.seed)
    rows: Iterable[Row]
    if args.bench == "sample" and args.curves:
        rows = bench.curves(options, *CURVES, args.tokens)
    elif args.bench == "sample":
        rows = bench.sample(options, args.n, args.prompt, args.tokens)
    elif args.bench == "queue":
        rows = bench.queue(options, args.requests, args.width, args.mean, args.most, args.prompt)
    elif args.bench == "search":
        _check_width(args)
        rows = bench.search(options, args.questions, args.n, args.width, args.rounds, args.step, args.prompt)
    else:
        rows = bench.verify(options, args.n, (3, 6, 12), args.step, args.prompt)
    shown: list[Row] = []
    try:
        for row in rows:
            shown.append(row)
            if args.json:
                bench.write_json(shown, args.json)
    finally:
        # What has been measured is not lost when a later row fails.
        if shown:
            _print(shown)
    if getattr(args, "figure", None):
        _draw(shown, args.figure)


def _check_width(args: argparse.Namespace) -> None:
    if args.width < 2 or args.n % args.width:
        raise UserError(f"--width must be at least 2 and divide --n {args.n}, which {args.width} does not")


def _draw(rows: list[Row], path: str) -> None:
    """Draw tokens a second against the number of samples, a colour a prompt length, the peer dashed."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, prompt in enumerate(sorted({row.prompt for row in rows if row.prompt is not None})):
        own = [row for row in rows if row.prompt == prompt]
        ns = [float(row.n or 0) for row in own]
        label = f"prompt of {prompt} tokens"
        axes.plot(ns, [row.ours for row in own], "o-", color=f"C{i}", label=f"ttcjax, {label}")
        if own[0].peer is not None:
            axes.plot(ns, [row.peer or 0.0 for row in own], "s--", color=f"C{i}", label=f"peer, {label}")
    axes.set(xscale="log", yscale="log", xlabel="samples of one prompt, N", ylabel="new tokens a second")
    axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _print(rows: list[Row]) -> None:
    from rich.table import Table

    table = Table("benchmark", box=None)
    for title in ("ours, tokens/s", "peer", "ratio", "of the limit", "peak memory, MB", "compile, s"):
        table.add_column(title, justify="right")

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        peaks = " / ".join(f"{size / 1e6:.0f}" for size in (row.peak_rss_bytes or {}).values())
        share = "" if row.limit_share is None else f"{row.limit_share:.0%}"
        compiled = number(row.compile_seconds, ".1f")
        table.add_row(
            row.name, f"{row.ours:.0f}", number(row.peer, ".0f"), number(row.ratio, ".2f"), share, peaks, compiled
        )
    console = _console()
    console.print(table)
    for row in rows:
        if row.notes:
            console.print(f"{row.name}: " + ", ".join(f"{k} {v:.6g}" for k, v in row.notes.items()))


def _console() -> Console:
    """Return where tables go; in a file or a pipe they are as wide as they need to be."""
    from ttcjax.text import terminal

    console = terminal.console()
    console.soft_wrap = True
    if not console.is_terminal:
        console.width = 200
    return console


def _compile(args: argparse.Namespace) -> None:
    import dataclasses
    import json
    import pathlib

    from rich.table import Table

    from ttcjax.bench import compile as bench

    found = bench.run(args.shape, args.budgets, args.strategies, args.prompts, args.questions, args.rows)
    table = Table("program", box=None)
    for title in ("questions x prompt slots", "seconds", "memory, MB"):
        table.add_column(title, justify="right")
    for c in found.first:
        size = (c.temp_bytes + c.argument_bytes) / 1e6
        table.add_row(c.name, f"{c.prompts[0]} x {c.prompts[1]}", f"{c.seconds:.1f}", f"{size:.1f}")
    console = _console()
    console.print(table)
    console.print(f"prompt buckets: {', '.join(map(str, found.prompt_buckets))} slots")
    console.print(f"compiled: {len(found.first)} programs; by a second sweep over other questions: {found.again}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    if found.again:
        raise UserError(f"{found.again} programs were compiled again: shapes are not bucketed as they should be")


def _flops(args: argparse.Namespace) -> None:
    import dataclasses
    import json
    import pathlib

    from rich.table import Table

    from ttcjax.bench import sharing as bench

    _check_width(args)
    found = bench.run(args.shape, args.n, args.width, args.prompt, args.tokens, args.step)
    table = Table("GFLOPs of a question", box=None)
    for title in ("logical", "logical, again", "executed", "executed, again", "executed / logical", "again / executed"):
        table.add_column(title, justify="right")
    for row in found.rows:
        counts = (row.logical, row.logical_again, row.executed, row.executed_again)
        ratios = (row.executed / row.logical, row.executed_again / row.executed)
        table.add_row(row.name, *(f"{x / 1e9:,.1f}" for x in counts), *(f"{x:.2f}" for x in ratios))
    console = _console()
    console.print(table)
    console.print(f"XLA's count over ours: prefill {found.xla.prefill:.3f}, decode step {found.xla.decode_step:.3f}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(dataclasses.asdict(found), indent=2) + "\n")
