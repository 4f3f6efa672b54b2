"""The commands: each takes the arguments as read, calls the library, and prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import shlex
from collections.abc import Callable

from etils import epath

from ttcjax import config as config_lib
from ttcjax.bench import command
from ttcjax.cli import grading, parser, show
from ttcjax.config import ExperimentConfig
from ttcjax.config.load import load_config, override
from ttcjax.pipeline import dry_run, run, stages
from ttcjax.runtime import records as records_lib
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve_workdir

logger = logging.getLogger(__name__)


def _config_of(args: argparse.Namespace) -> ExperimentConfig:
    return override(load_config(args.config), args.overrides, f"ttcjax {args.command} {args.config}")


def _config_with_flags(args: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None]) -> ExperimentConfig:
    """Return the config; flags of the command may stand before CONFIG or after it, among the settings."""
    flags = parser.Parser(f"ttcjax {args.command} {args.config}", add_help=False, allow_abbrev=False)
    add(flags)
    _, args.overrides = flags.parse_known_args(args.overrides, args)
    if args.json and not getattr(args, "dry_run", True):
        raise UserError("--json is the form of a dry run: add --dry-run")
    if args.limit is not None:  # as a setting, which messages that repeat the command then name
        args.overrides = [*args.overrides, "--sweep.limit", str(args.limit)]
    config = _config_of(args)
    if args.limit is not None:
        logger.info("the first %d test questions alone (--limit)", config.sweep.limit)
    return dataclasses.replace(config, workdir=os.fspath(resolve_workdir(config.workdir)))


def _print_plan(config: ExperimentConfig, args: argparse.Namespace, only: str | None = None) -> None:
    found = dry_run.plan(config, only=only, command=_as_typed(args))
    if args.json:
        print(json.dumps({"workdir": config.workdir, "stages": [dataclasses.asdict(one) for one in found]}, indent=2))
    else:
        left = [stages.get_stage(one.stage) for one in found if one.action not in ("keep", "restore")]
        show.print_lines(dry_run.lines(found, run.device_shares(config, left)))


def _as_typed(args: argparse.Namespace) -> str:
    """Return the config and its overrides as they would be typed again."""
    return shlex.join([args.config, *args.overrides])


def _run(args: argparse.Namespace) -> None:
    config = _config_with_flags(args, parser.add_run_flags)
    if args.dry_run:
        return _print_plan(config, args)
    records = run.run(
        config, command=_as_typed(args), made=lambda stage, workdir: show.print_first(config, stage, workdir)
    )
    show.print_report(records["report"]["result"], config.workdir)


def _run_one(args: argparse.Namespace) -> None:
    config = _config_with_flags(args, parser.add_run_flags)
    if args.dry_run:
        return _print_plan(config, args, only=args.command)
    records = run.run(config, only=args.command, command=_as_typed(args))
    if args.command == "report":
        show.print_report(records["report"]["result"], config.workdir)


def _sweep(args: argparse.Namespace) -> None:
    from ttcjax.pipeline import plan as plans
    from ttcjax.pipeline import sweep  # imports jax
    from ttcjax.runtime.shards import WHOLE, Part

    config = _config_with_flags(args, parser.add_sweep_flags)
    part = Part.parse(args.part) if args.part else WHOLE
    if args.dry_run:
        found = sweep.plan(config, part, command=_as_typed(args))
        if args.json:
            print(json.dumps({"workdir": config.workdir, **plans.as_json(found)}, indent=2))
        else:
            show.print_lines(plans.lines(found, sweep.probe(found, _as_typed(args))))
        return
    if not args.part:
        show.print_report(sweep.run(config, command=_as_typed(args))["report"]["result"], config.workdir)
        return
    records = sweep.run_part(config, part, command=_as_typed(args))
    if "report" in records:
        show.print_report(records["report"]["result"], config.workdir)
    else:
        waits = ", ".join(sweep.waits_for(config)) or "the report"
        again = f"`ttcjax sweep {_as_typed(args)}` once no part runs"
        show.print_lines([f"part {part} is done and waits for {waits}: the last part completes it, or {again}"])


def _study(args: argparse.Namespace) -> None:
    from ttcjax.pipeline import study  # imports jax
    from ttcjax.runtime.shards import WHOLE, Part

    config = _config_with_flags(args, parser.add_study_flags)
    if args.seeds is None:
        raise UserError("--seeds is missing: say how many, such as --seeds 3")
    part = Part.parse(args.part) if args.part else WHOLE
    if args.dry_run:
        return _print_study_plan(config, args, study.plan(config, args.seeds, part))
    again = shlex.join([args.config, "--seeds", str(args.seeds), *args.overrides])
    found = study.study(config, args.seeds, part, command=again)
    if found:
        show.print_study(found, config.workdir)
    else:
        waits = "; ".join(study.waits_for(config, args.seeds)) or "the report"
        told = f"part {part} is done and waits for {waits}: the last part completes it, or `ttcjax study {again}`"
        show.print_lines([f"{told} once no part runs"])
    return None


def _print_study_plan(
    config: ExperimentConfig, args: argparse.Namespace, found: list[tuple[int, epath.Path, list[dry_run.Planned]]]
) -> None:
    if args.json:
        seeds = [
            {"seed": number, "workdir": os.fspath(workdir), "stages": [dataclasses.asdict(one) for one in planned]}
            for number, workdir, planned in found
        ]
        print(json.dumps({"workdir": config.workdir, "seeds": seeds}, indent=2))
        return
    for number, workdir, planned in found:
        left = [stages.get_stage(one.stage) for one in planned if one.action not in ("keep", "restore")]
        show.print_lines([f"seed {number}: {len(planned) - len(left)} of {len(planned)} stages complete, in {workdir}"])
        show.print_lines(f"  {line}" for line in dry_run.lines([one for one in planned if one.action != "keep"], {}))
    if found:
        show.print_lines(run.device_shares(config, run.wanted_stages(config)).values())


def _check_data(args: argparse.Namespace) -> int:
    from ttcjax.data.overlap import matches

    config = _config_with_flags(args, parser.add_check_flags)
    if args.run < 1 or not 0 < args.share <= 1:
        raise UserError(f"--run must be 1 or more and --share lie in (0, 1], not {args.run} and {args.share}")
    found = matches.check(config.data, args.against, run=args.run, share=args.share, limit=config.sweep.limit)
    if args.json:
        print(json.dumps(dataclasses.asdict(found) | {"counts": found.counts}, indent=2))
    else:
        show.print_overlap(
            found, "training questions" if args.against is None else f"texts of {args.against}", args.show
        )
    return 3 if found.matches else 0


def _print_config(args: argparse.Namespace) -> None:
    print(json.dumps(config_lib.to_dict(_config_of(args)), indent=2))


def _list(args: argparse.Namespace) -> None:
    from ttcjax.pipeline import study  # imports jax

    seeds = study.folders(args.workdir)
    for folder in seeds.values():
        _list_stages(folder, f"{folder.name}/")
    if seeds:
        show.print_lines([f"{'report':12} {study.state(args.workdir)}"])
    if not seeds:
        _list_stages(resolve_workdir(args.workdir, "WORKDIR"))


def _list_stages(workdir: epath.Path, prefix: str = "") -> None:
    for name, state, record in run.states(workdir):
        detail = f"{record['seconds']:8.1f} s  {record['fingerprint']}" if record else ""
        show.print_lines([f"{prefix}{name:12} {state:10} {detail}".rstrip()])
        odd = records_lib.strangers(workdir / name, record) if state == "complete" and record else []
        if odd:
            show.print_lines([f"{' ' * len(prefix)}{'':12} {records_lib.told_of_strangers(odd)}"])


def _solve(args: argparse.Namespace) -> None:
    from ttcjax.pipeline import study
    from ttcjax.pipeline.solve import config_of, solve

    if seeds := study.folders(args.workdir):
        raise UserError(
            f"{args.workdir} is a study: ask one of its seeds, as with --workdir {next(iter(seeds.values()))}"
        )
    sampler = None
    if args.overrides:
        sampler = override(config_of(args.workdir, args.strategy), json.loads(args.overrides), "ttcjax solve").sampler
    solved = solve(args.question, args.workdir, args.strategy, args.seed, sampler)
    show.print_solved(solved)
    if solved.warning:
        logger.warning("%s", solved.warning)


def _models(args: argparse.Namespace) -> None:
    from ttcjax.model.importers import conversion, inspection, published  # imports jax

    where = published.recognise(args.path)
    if (args.folder is None) != (args.action == "inspect"):
        raise UserError(f"models {args.action} takes MODEL{' and FOLDER' * (args.action == 'export')}")
    if args.action == "export":
        return conversion.rewrite(where, args.folder)
    found = inspection.inspect_own(where) if where.kind == "orbax" else inspection.inspect(where)
    show.print_lines(f"{name:12} {text}" for name, text in found.facts)
    if found.missing:
        show.print_lines([f"{'missing':12} {', '.join(found.missing)}"])
    if found.faults:
        raise UserError(f"{where}: {'; '.join(found.faults)}")
    return None


def _import(args: argparse.Namespace) -> None:
    from ttcjax.model.importers import conversion, published

    show.print_lines([str(conversion.convert(published.recognise(args.source), args.workdir, args.name, args.dtype))])


def _bench(args: argparse.Namespace) -> None:
    command.run(args)


def _version(args: argparse.Namespace) -> None:
    print(parser.version())


CALLS: dict[str, parser.Call] = {
    "run": _run,
    "stage": _run_one,
    "sweep": _sweep,
    "study": _study,
    parser.CHECK: _check_data,
    "config": _print_config,
    "list": _list,
    "solve": _solve,
    "models": _models,
    "import": _import,
    "bench": _bench,
    "grade": grading.run,
    "version": _version,
}
"""Function of each command; `stage` is for the commands named after a single stage."""

COMPUTING = frozenset(["run", "sweep", "study", "solve", "import", "bench", *(stage.name for stage in stages.STAGES)])
"""The commands that start JAX."""
