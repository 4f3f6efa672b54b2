"""The `ttcjax` command: reads arguments, calls the library, prints results and errors.

Library errors become one line on stderr and an exit status: 2 for bad input, 1 for a full disk or
another failure of the system, 130 for Ctrl-C and 143 for SIGTERM. `--debug` shows the traceback too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import errno
import io
import json
import logging
import os
import re
import runpy
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import ttcjax
from ttcjax import config as config_lib
from ttcjax import pipeline
from ttcjax.bench import cli as bench_cli
from ttcjax.config import ConfigError, ExperimentConfig
from ttcjax.errors import UserError

if TYPE_CHECKING:
    from ttcjax.solve import Revised, Solved

_TERMINATED = 128 + signal.SIGTERM
"""The status that shells give to a process ended by SIGTERM."""

_DESCRIPTION = "Test-time compute for language models in JAX: sample, verify, search, and measure what it buys."

_EPILOG = """\
examples:
  ttcjax run configs/procmath_tiny.py                       every stage, into the config's workdir
  ttcjax run configs/procmath_tiny.py --workdir runs/a --policy.steps 800
  ttcjax search configs/procmath_tiny.py --sweep.budgets 1 4 16
  ttcjax sweep configs/procmath_tiny.py --dry-run           what an evaluation will take; `ttcjax sweep --help`
  ttcjax run configs/procmath_tiny.py --help                every setting, its meaning and value
  ttcjax list runs/demo                                     which stages are complete
  ttcjax solve "..." --workdir runs/demo --strategy beam:n=16,width=4
  ttcjax bench sample --peer transformers                   tokens a second beside another program

Run a command again to go on after an interruption: complete stages are skipped, the others resume.

flags of every command:
  --debug        show the traceback of an error
  --distributed  join the processes of a multi-host JAX job first (jax.distributed.initialize)

environment:
  JAX_COMPILATION_CACHE_DIR  folder (or gs:// path) where compiled programs are kept between runs
  JAX_PLATFORMS              cpu, tpu or cuda; the default is the fastest that is installed
  GLIBC_TUNABLES             glibc.malloc.hugetlb=1 unless it is set: large pages make CPU runs faster
"""

_SWEEP_EPILOG = """\
It runs the stages bank, rescore, search, chains and greedy, those that the config has, then the report; the models must
be trained. What is complete is kept, shard by shard: the same command goes on after any interruption.

examples:
  ttcjax sweep configs/procmath_tiny.py --dry-run             what is left: generations, tokens, FLOPs, time
  ttcjax sweep configs/procmath_tiny.py                       everything in one process, with all devices of the host
  ttcjax sweep configs/procmath_tiny.py --sweep.budgets 1 4 16 --sweep.seeds 3 --dry-run --json

  four processes, on one host or on four that share the workdir:
    for i in 1 2 3 4; do ttcjax sweep CONFIG --workdir /nfs/runs/a --part $i/4 & done; wait

  a job array (Slurm: sbatch --array=1-16):
    ttcjax sweep CONFIG --workdir /nfs/runs/a --part $SLURM_ARRAY_TASK_ID/16

Parts take their own shards of every stage, and rows are those of a run in one process. The one that finds a stage
whole completes it, the last one writes the report; a part that others keep waiting says so and ends with status 0.
Where a part was lost, start it again, or run the command without --part once no part runs: it makes what is missing.
On gs://, which has no locks, parts make shards only, and the command without --part completes each stage.

"""

_CONFIG_EPILOG = """\
Settings of the config are overridden by name after it: --policy.steps 800 --sweep.budgets 1 4 16
`ttcjax {command} CONFIG --help` lists them all with the values of that config.
"""


def entry() -> int:
    """Run as a program: `main` in a process that takes its memory in large pages."""
    _take_large_pages()
    return main()


def _take_large_pages() -> None:
    """Start this program again with large pages for what the C library allocates, where it was started without.

    XLA on CPU takes the memory of every step anew, and in small pages a fifth of the time of training goes into
    page faults. The GNU C library reads the setting when a process starts, and only then.
    """
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        recent = tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except (AttributeError, OSError, ValueError):  # Another C library.
        return
    if name == "glibc" and recent and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug, distributed = _take(arguments, "--debug"), _take(arguments, "--distributed")
    try:
        args = _parser().parse_args(arguments)
        _start_logging()
        with _sigterm_raises():
            if args.call in _COMPUTING:
                _prepare_jax()
            if distributed:
                _join_distributed()
            args.call(args)
        return 0
    except KeyboardInterrupt:
        return _report("interrupted; run the same command again to go on", 130, debug)
    except BrokenPipeError:
        # The reader of our output, such as `head`, is gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, ConfigError) as error:
        return _report(str(error), 2, debug)
    except SystemExit as error:
        if error.code == _TERMINATED:
            return _report("stopped by SIGTERM; run the same command again to go on", _TERMINATED, debug)
        raise
    except Exception as error:
        if _disk_is_full(error):
            where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
            advice = "free some space and run the same command again, finished work is kept"
            return _report(f"no space left on the disk{where}: {advice}", 1, debug)
        if isinstance(error, OSError) and error.strerror:
            return _report(f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1, debug)
        raise


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"ttcjax: {' '.join(message.split())}", file=sys.stderr)
    return status


def _take(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _disk_is_full(error: BaseException | None) -> bool:
    """Say whether the error or what caused it is a full disk; C++ writers tell it in their message only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(_TERMINATED)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed and what can be saved is saved."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _start_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("ttcjax").setLevel(logging.INFO)


def _prepare_jax() -> None:
    from ttcjax.parallel import skip_absent_tpu, use_all_cpu_cores  # imports jax

    skip_absent_tpu()
    use_all_cpu_cores()


def _join_distributed() -> None:
    import jax

    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed found no multi-host job to join: {error}") from error
    if jax.process_count() > 1:
        raise UserError(
            f"{jax.process_count()} processes joined, and stages write from one: start `ttcjax` on one host"
        )


# ---- arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("ttcjax", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, call: Callable[[argparse.Namespace], None], summary: str, epilog: str = "") -> Any:
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=epilog, formatter_class=raw
        )
        command.set_defaults(call=call, command=name)
        return command

    def add_config(name: str, call: Callable[[argparse.Namespace], None], summary: str, epilog: str = "") -> None:
        command = add(name, call, summary, epilog + _CONFIG_EPILOG.format(command=name))
        if call is _sweep:
            _add_sweep_flags(command)
        command.add_argument("config", metavar="CONFIG", help="Python file with a get_config() function")
        rest = command.add_argument("overrides", metavar="--SETTING VALUE", nargs=argparse.REMAINDER)
        rest.required = False

    add_config("run", _run, "run every stage that is not complete yet")
    for stage in pipeline.STAGES:
        add_config(stage.name, _run_one, f"stage: {stage.summary}")
    add_config("sweep", _sweep, "evaluate trained models: estimate, run, or share among processes", _SWEEP_EPILOG)
    add_config("config", _print_config, "print the resolved config as JSON")

    command = add("list", _list, "list the stages in a workdir and their state")
    command.add_argument("workdir", metavar="WORKDIR")

    command = add("solve", _solve, "answer one question with the models of a workdir")
    command.add_argument("question", metavar="QUESTION")
    command.add_argument("--workdir", required=True, help="where `ttcjax run` put its stages")
    command.add_argument(
        "--strategy",
        default="beam:n=16,width=4",
        help="such as beam:n=16,width=4, best_of_n:n=64, revise:s=8,p=2 or refine:steps=8 (%(default)s)",
    )
    command.add_argument("--seed", type=int, default=0)

    bench = add("bench", _bench, "measure the engine, alone or beside Hugging Face transformers")
    bench_cli.add_arguments(bench)

    add("version", _version, "print the versions of ttcjax and jax")
    return parser


def _add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what is left and what it takes; run nothing")
    parser.add_argument("--json", action="store_true", help="print the dry run as JSON")
    parser.add_argument("--part", metavar="I/K", help="run the share of process I of K that share the workdir")


def load_config(path: str) -> ExperimentConfig:
    """Return what `get_config()` of a Python file gives.

    Raises:
        UserError: The file is missing, fails, or has no such function.
    """
    if not os.path.isfile(path):
        hint = "; the config file comes before the settings" if path.startswith("-") else ""
        raise UserError(f"no config file {path}{hint}")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"{path} has no get_config() function that returns an ExperimentConfig")
        config = get_config()
    except UserError:
        raise
    except ConfigError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = path if line is None else f"{path}, line {line}"
        raise UserError(f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ExperimentConfig):
        raise UserError(f"get_config() in {path} must return an ExperimentConfig, not {type(config).__name__}")
    return config


def override(config: ExperimentConfig, arguments: Sequence[str], prog: str = "ttcjax run CONFIG") -> ExperimentConfig:
    """Return the config with settings replaced by command-line arguments, such as `--policy.steps 800`.

    Raises:
        ConfigError: A setting is unknown (the closest one is named) or its value does not fit.
    """
    if not arguments:
        return config
    import tyro

    asks_help = any(a in ("-h", "--help") for a in arguments)
    box = io.StringIO()
    try:
        with contextlib.nullcontext() if asks_help else contextlib.redirect_stderr(box):
            changed, unknown = tyro.cli(
                ExperimentConfig,
                prog=prog,
                args=list(arguments),
                default=config,
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_reason(box.getvalue())) from stop
    if unknown:
        raise ConfigError(_unknown_setting(unknown[0]))
    return changed


def _reason(box: str) -> str:
    """Return in one line what tyro says in the first part of its box of text."""
    words = []
    for line in box.splitlines()[1:]:
        line = line.strip("│ ")
        if not line.strip("─-"):  # A rule; on a terminal without line-drawing characters there is one on top too.
            if words:
                break
        else:
            words.append(line)
    reason = " ".join(words).removeprefix("Error parsing ").removeprefix(f"{ExperimentConfig.__name__}: ")
    reason = _NO_INT.sub(r"must be a whole number, not \1", _NO_FLOAT.sub(r"must be a number, not '\1'", reason))
    # A table's own check names the table too: `labels: labels.seed must ...`.
    reason = re.sub(r"^(\w+): (?=\1\.)", "", reason)
    return reason or "these settings cannot be read"


_NO_INT = re.compile(r"invalid literal for int\(\) with base 10: ('.*')$")
_NO_FLOAT = re.compile(r"could not convert string to float: '?(.*?)'?$")


def _unknown_setting(argument: str) -> str:
    if not argument.startswith("--"):
        return f"unexpected argument {argument!r}; settings are given as --name value"
    name = argument[2:].split("=")[0].replace("-", "_")
    known = list(_setting_names(ExperimentConfig))
    close = difflib.get_close_matches(name, known, n=1)
    # A name given without its table, `steps` for `policy.steps`, is far from the full one in letters.
    close = [k for k in known if k.endswith(f".{name}")][:1] or close
    hint = f"did you mean --{close[0]}?" if close else "`ttcjax run CONFIG --help` lists them"
    return f"unknown setting --{name}; {hint}"


def _setting_names(cls: type, prefix: str = "") -> Iterator[str]:
    instance = cls()
    for field in dataclasses.fields(cls):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from _setting_names(type(value), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


# ---- commands


def _config_of(args: argparse.Namespace) -> ExperimentConfig:
    return override(load_config(args.config), args.overrides, f"ttcjax {args.command} {args.config}")


def _as_typed(args: argparse.Namespace) -> str:
    """Return the config and its overrides as they would be typed again."""
    return shlex.join([args.config, *args.overrides])


def _run(args: argparse.Namespace) -> None:
    config = _config_of(args)
    records = pipeline.run(config, command=_as_typed(args))
    _print_report(records["report"]["result"], config.workdir)


def _run_one(args: argparse.Namespace) -> None:
    config = _config_of(args)
    records = pipeline.run(config, only=args.command, command=_as_typed(args))
    if args.command == "report":
        _print_report(records["report"]["result"], config.workdir)


def _sweep(args: argparse.Namespace) -> None:
    from ttcjax import sweeping  # imports jax
    from ttcjax.eval import plan as plans
    from ttcjax.eval.shards import WHOLE, Part

    # What follows CONFIG is read here, as it may hold settings; flags before it are in `args` already.
    flags = _Parser(f"ttcjax sweep {args.config}", add_help=False, allow_abbrev=False)
    _add_sweep_flags(flags)
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
            print("\n".join(plans.lines(found, sweeping.probe(found, _as_typed(args)))))
        return
    if not args.part:
        _print_report(sweeping.run(config, command=_as_typed(args))["report"]["result"], config.workdir)
        return
    records = sweeping.run_part(config, part, command=_as_typed(args))
    if "report" in records:
        _print_report(records["report"]["result"], config.workdir)
    else:
        print(
            f"part {part} is done and waits for {', '.join(sweeping.waits_for(config)) or 'the report'}: the last part "
            f"completes it, or `ttcjax sweep {_as_typed(args)}` once no part runs"
        )


def _print_report(summary: dict[str, Any], workdir: str) -> None:
    from etils import epath
    from rich.console import Console
    from rich.text import Text

    from ttcjax.eval import catalogue
    from ttcjax.eval.report import render

    console = Console()
    render(summary, console)
    folder = epath.Path(workdir)
    report = folder / "report"
    figures = catalogue.in_order(path.stem for path in report.iterdir() if path.suffix == ".png")
    lines = [f"{catalogue.line(name)}: {report / f'{name}.png'}" for name in figures]
    if (report / "index.html").exists():  # reports made before there was a page have none
        lines.append(f"all of it on one page: {report / 'index.html'}")
    for line in ("", *lines, f"every number: {folder / 'summary.json'}"):
        console.print(Text(line), soft_wrap=True)


def _print_config(args: argparse.Namespace) -> None:
    print(json.dumps(config_lib.to_dict(_config_of(args)), indent=2))


def _list(args: argparse.Namespace) -> None:
    if not os.path.isdir(args.workdir) and "://" not in args.workdir:
        raise UserError(f"no workdir {args.workdir}: `ttcjax run CONFIG --workdir {args.workdir}` makes it")
    for name, state, record in pipeline.states(args.workdir):
        detail = f"{record['seconds']:8.1f} s  {record['fingerprint']}" if record else ""
        print(f"{name:12} {state:10} {detail}".rstrip())


def _solve(args: argparse.Namespace) -> None:
    from ttcjax.revise import strategies
    from ttcjax.solve import solve, solve_by_revising

    if strategies.is_one(args.strategy):
        _print_revised(solve_by_revising(args.question, args.workdir, args.strategy, args.seed))
    else:
        _print_solved(solve(args.question, args.workdir, args.strategy, args.seed))


def _print_revised(revised: Revised) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"{revised.question}\n"))
    for number, chain in enumerate(revised.chains):
        title = f"chain {number + 1} of {len(revised.chains)}" if len(revised.chains) > 1 else "answers"
        table = Table("", "answer", "score", "steps, the new ones marked", title=title, title_justify="left", box=None)
        for place, reply in enumerate(chain):
            # Model text goes through Text: square brackets in it are not markup.
            steps = Text("\n").join(
                Text(f"{'+' if new else ' '} {step}", style="bold" if new else "dim") for step, new in reply.steps
            )
            mark = "*" if (number, place) == revised.chosen else "" if reply.kept is not False else "not kept"
            answer = Text("(none)" if reply.answer is None else reply.answer)
            table.add_row(f"{place + 1}{mark and f' {mark}'}", answer, f"{reply.score:.3f}", steps)
        console.print(table, "")
    answer = "no answer could be read" if revised.answer is None else f"{revised.answer}   (* above"
    tail = f"({revised.generations} generations, {revised.seconds:.1f} s)"
    console.print(Text(f"answer: {answer}, {tail[1:]}" if revised.answer is not None else f"answer: {answer}   {tail}"))


def _print_solved(solved: Solved) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Model text goes through Text: square brackets in it are not markup.
    steps = Table("step", "score", title="best solution", title_justify="left", box=None)
    for text, score in solved.steps:
        steps.add_row(Text(text), f"{score:.3f}")
    votes = Table("answer", "weight", "candidates", title="votes", title_justify="left", box=None)
    for answer, weight, count in solved.votes:
        votes.add_row(Text("(none that could be read)" if answer is None else answer), f"{weight:.3f}", str(count))
    console = Console(highlight=False)
    console.print(Text(solved.question), steps, votes, sep="\n\n")
    answer = "no answer could be read" if solved.answer is None else solved.answer
    console.print(Text(f"\nanswer: {answer}   ({solved.generations} generations, {solved.seconds:.1f} s)"))


def _bench(args: argparse.Namespace) -> None:
    bench_cli.run(args)


_COMPUTING = (_run, _run_one, _sweep, _solve, _bench)


def _version(args: argparse.Namespace) -> None:
    from importlib.metadata import version

    print(f"ttcjax {ttcjax.__version__}, jax {version('jax')}")


if __name__ == "__main__":
    sys.exit(entry())
