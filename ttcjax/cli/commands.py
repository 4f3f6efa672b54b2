"""The commands: each takes the arguments as read, calls the library, and prints."""

from __future__ import annotations

import argparse
import json
import os
import shlex

import ttcjax
from ttcjax import config as config_lib
from ttcjax import pipeline, stages
from ttcjax.bench import cli as bench_cli
from ttcjax.cli import parser, show
from ttcjax.cli.overrides import load_config, override
from ttcjax.config import ExperimentConfig
from ttcjax.errors import UserError


def _config_of(args: argparse.Namespace) -> ExperimentConfig:
    return override(load_config(args.config), args.overrides, f"ttcjax {args.command} {args.config}")


def _as_typed(args: argparse.Namespace) -> str:
    """Return the config and its overrides as they would be typed again."""
    return shlex.join([args.config, *args.overrides])


def _run(args: argparse.Namespace) -> None:
    config = _config_of(args)
    records = pipeline.run(config, command=_as_typed(args))
    show.print_report(records["report"]["result"], config.workdir)


def _run_one(args: argparse.Namespace) -> None:
    config = _config_of(args)
    records = pipeline.run(config, only=args.command, command=_as_typed(args))
    if args.command == "report":
        show.print_report(records["report"]["result"], config.workdir)


def _sweep(args: argparse.Namespace) -> None:
    from ttcjax import sweeping  # imports jax
    from ttcjax.eval import plan as plans
    from ttcjax.eval.shards import WHOLE, Part

    # What follows CONFIG is read here, as it may hold settings; flags before it are in `args` already.
    flags = parser.Parser(f"ttcjax sweep {args.config}", add_help=False, allow_abbrev=False)
    parser.add_sweep_flags(flags)
    _, args.overrides = flags.parse_known_args(args.overrides, args)
    config = _config_of(args)
    part = Part.parse(args.part) if args.part else WHOLE
    if args.json and not args.dry_run:
        raise UserError("--json is the form of a dry run: add --dry-run")
    if args.dry_run:
        found = sweeping.plan(config, part, command=_as_typed(args))
        if args.json:
            print(json.dumps({"workdir": config.workdir, **plans.as_json(found)}, indent=2))
        else:
            show.print_lines(plans.lines(found, sweeping.probe(found, _as_typed(args))))
        return
    if not args.part:
        show.print_report(sweeping.run(config, command=_as_typed(args))["report"]["result"], config.workdir)
        return
    records = sweeping.run_part(config, part, command=_as_typed(args))
    if "report" in records:
        show.print_report(records["report"]["result"], config.workdir)
    else:
        waits = ", ".join(sweeping.waits_for(config)) or "the report"
        again = f"`ttcjax sweep {_as_typed(args)}` once no part runs"
        show.print_lines([f"part {part} is done and waits for {waits}: the last part completes it, or {again}"])


def _print_config(args: argparse.Namespace) -> None:
    print(json.dumps(config_lib.to_dict(_config_of(args)), indent=2))


def _list(args: argparse.Namespace) -> None:
    if not os.path.isdir(args.workdir) and "://" not in args.workdir:
        raise UserError(f"no workdir {args.workdir}: `ttcjax run CONFIG --workdir {args.workdir}` makes it")
    for name, state, record in pipeline.states(args.workdir):
        detail = f"{record['seconds']:8.1f} s  {record['fingerprint']}" if record else ""
        show.print_lines([f"{name:12} {state:10} {detail}".rstrip()])


def _solve(args: argparse.Namespace) -> None:
    from ttcjax.revise import strategies
    from ttcjax.solve import solve, solve_by_revising

    if strategies.is_one(args.strategy):
        show.print_revised(solve_by_revising(args.question, args.workdir, args.strategy, args.seed))
    else:
        show.print_solved(solve(args.question, args.workdir, args.strategy, args.seed))


def _bench(args: argparse.Namespace) -> None:
    bench_cli.run(args)


def _version(args: argparse.Namespace) -> None:
    from importlib.metadata import version

    print(f"ttcjax {ttcjax.__version__}, jax {version('jax')}")


CALLS: dict[str, parser.Call] = {
    "run": _run,
    "stage": _run_one,
    "sweep": _sweep,
    "config": _print_config,
    "list": _list,
    "solve": _solve,
    "bench": _bench,
    "version": _version,
}
"""What runs each command; `stage` is for the commands named after a single stage."""

COMPUTING = frozenset(["run", "sweep", "solve", "bench", *(stage.name for stage in stages.STAGES)])
"""The commands that start JAX."""
