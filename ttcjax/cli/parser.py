"""The arguments of the `ttcjax` command, and the help that teaches them."""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import ttcjax
from ttcjax.bench import command as bench_cli
from ttcjax.cli import grading
from ttcjax.pipeline import stages
from ttcjax.runtime.errors import UserError

_DESCRIPTION = "Test-time compute for language models in JAX: sample, verify, search, and measure what it buys."

_EPILOG = """\
examples:
  ttcjax run configs/procmath_tiny.py                       every stage, into the config's workdir
  ttcjax run configs/procmath_tiny.py --workdir runs/a --policy.steps 800
  ttcjax search configs/procmath_tiny.py --sweep.budgets 1 4 16
  ttcjax sweep configs/procmath_tiny.py --dry-run           what an evaluation will take; `ttcjax sweep --help`
  ttcjax study configs/procmath_tiny.py --seeds 3           all of it once a seed, and one report over the seeds
  ttcjax run configs/procmath_tiny.py --help                every setting, its meaning and value
  ttcjax run configs/procmath_tiny.py --dry-run             what each stage would do; nothing is run or written
  ttcjax list runs/demo                                     which stages are complete, what is damaged; of a study too
  ttcjax solve "..." --workdir runs/demo --strategy beam:n=16,width=4
  ttcjax models inspect gguf:FILE                           what a published model is, and what it lacks
  ttcjax data check configs/procmath_tiny.py                test questions that are in the training data
  ttcjax bench sample --peer transformers                   tokens a second beside another program

Run a command again to go on after an interruption: complete stages are skipped, the others resume.

exit status: 0 done; 1 the machine refuses (full disk, no permission, memory or network); 2 what was given cannot be
used; 3 `data check` found test questions; 130 Ctrl-C; 143 SIGTERM. After 1, 130 and 143 the same command goes on.

flags of every command:
  --debug        show the traceback of an error
  --distributed  join the processes of a multi-host JAX job first (jax.distributed.initialize)

environment:
  JAX_COMPILATION_CACHE_DIR  folder (or gs:// path) where compiled programs are kept between runs
  JAX_PLATFORMS              cpu, tpu or cuda; the default is the fastest that is installed
  GLIBC_TUNABLES             glibc.malloc.hugetlb=1 unless it is set: large pages make CPU runs faster
"""

_SWEEP_EPILOG = """\
It runs the stages tune, bank, rescore, search, chains, rescore_chains and greedy, those that the config has, then the
report; the models must be trained. What is complete is kept, shard by shard: the same command goes on after any
interruption.

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

_STUDY_EPILOG = """\
It runs every stage once a seed, in WORKDIR/seed-0, WORKDIR/seed-1, ..., then one report over all seeds. Seed 0 is the
config itself; for seed K every setting called `seed` is K * 65536 more, but for data.seed: the questions are the same.
What is complete is kept: the same command goes on after any interruption, and with more seeds adds those.

examples:
  ttcjax study configs/procmath_tiny.py --seeds 3 --workdir runs/study
  ttcjax study configs/procmath_tiny.py --seeds 3 --workdir runs/study --dry-run
  ttcjax list runs/study                                      which stages of which seeds are complete

  three processes, on one host or on three that share the workdir:
    for i in 1 2 3; do ttcjax study CONFIG --seeds 3 --workdir /nfs/runs/a --part $i/3 & done; wait

Parts share the seeds; where there are more parts than seeds, one of those of a seed trains its models and all share its
evaluation. The part that completes the last seed writes the report over all; others say what is missing and end with
status 0. Where a part was lost, start it again, or run the command without --part once no part runs.

"""

_SOLVE_EPILOG = """\
examples:
  ttcjax solve "If f(x)=3x-3, what is f(7)? Name each result." --workdir runs/demo
  ttcjax solve --workdir runs/demo --strategy best_of_n:n=64,select=weighted -- "-3 + 5 = ?"
  ttcjax solve "..." --workdir runs/demo --strategy revise:s=8,p=2 --sampler.max_tokens 64

It warns where the question is unlike those that the policy was trained on: its answer is then worth little.
"""

_IMPORT_EPILOG = """\
examples:
  ttcjax models inspect ~/models/Qwen2.5-1.5B-Instruct         before anything is read that takes long
  ttcjax models export orbax:runs/demo/policy/best exported/   as transformers loads it
  ttcjax import hf:~/models/Qwen2.5-1.5B-Instruct --workdir runs/a --dtype bfloat16
  ttcjax import gguf:SmolLM2-135M-Instruct.Q4_1.gguf --workdir runs/a --name smollm2

It prints the name by which the converted model is loaded; docs/models.md has the families and forms that are known.
"""

_CHECK_EPILOG = """\
examples:
  ttcjax data check configs/gsm8k_scratch.py --data.dir data/gsm8k
  ttcjax data check configs/gsm8k_scratch.py --data.dir data/gsm8k --against data/other --run 13 --share 0.3

A test question is found where a text is the same but for layout, the same but for names (words with a capital), or has
a share of its runs of words; in the embedded domain, where a training question of its subject has the same numbers.
Exit status: 0 none is found, 3 some are.
"""

_CONFIG_EPILOG = """\
Settings of the config are overridden by name after it: --policy.steps 800 --sweep.budgets 1 4 16
`ttcjax {command} CONFIG --help` lists them all with the values of that config.
"""


Call = Callable[[argparse.Namespace], int | None]
"""Runs a command; returns an exit status, `None` for 0."""
CHECK = "data check"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def build(calls: Mapping[str, Call]) -> Parser:
    """Return the parser of the whole command line.

    Args:
        calls: What runs each command, by its name; `stage` runs any single stage.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("ttcjax", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, summary: str, epilog: str = "") -> Any:
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=epilog, formatter_class=raw
        )
        command.set_defaults(call=calls.get(name, calls["stage"]), command=name)
        return command

    def add_config(name: str, summary: str, epilog: str = "") -> None:
        command = add(name, summary, epilog + _CONFIG_EPILOG.format(command=name))
        if name == "sweep":
            add_sweep_flags(command)
        elif name == "study":
            add_study_flags(command)
        elif name == CHECK:
            add_check_flags(command)
        elif name != "config":
            add_run_flags(command)
        command.add_argument("config", metavar="CONFIG", help="Python file with a get_config() function")
        rest = command.add_argument("overrides", metavar="--SETTING VALUE", nargs=argparse.REMAINDER)
        rest.required = False

    add_config("run", "run every stage that is not complete yet")
    for stage in stages.STAGES:
        add_config(stage.name, f"stage: {stage.summary}")
    add_config("sweep", "evaluate trained models: estimate, run, or share among processes", _SWEEP_EPILOG)
    add_config("study", "run everything once a seed, and report over all seeds", _STUDY_EPILOG)
    add_config(CHECK, "find test questions in the training data, or in a folder of other texts", _CHECK_EPILOG)
    add_config("config", "print the resolved config as JSON")

    command = add("list", "list the stages in a workdir, or of every seed of a study, and their state")
    command.add_argument("workdir", metavar="WORKDIR")

    command = add("solve", "answer one question with the models of a workdir")
    command.epilog = _SOLVE_EPILOG
    command.add_argument("question", metavar="QUESTION", help="after `--` where it looks like an option")
    command.add_argument("--workdir", required=True, help="where `ttcjax run` put its stages")
    command.add_argument(
        "--strategy",
        default="beam:n=16,width=4",
        help="such as beam:n=16,width=4, best_of_n:n=64, adaptive:n=64, lookahead:n=16,k=1, dvts:n=16, rebase:n=16, "
        "particles:n=16, revise:s=8,p=2 or refine:steps=8; docs/strategies.md has their settings (%(default)s)",
    )
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--sampler.SETTING",
        metavar="VALUE",
        dest="overrides",
        help="a setting of the sampler in place of the run's own, such as --sampler.max_tokens 64",
    )

    command = add(
        "models", "look at a model without reading its weights, or write it for other programs", _IMPORT_EPILOG
    )
    command.add_argument(
        "action", choices=["inspect", "export"], help="what it is and lacks; config.json and safetensors"
    )
    command.add_argument("path", metavar="MODEL", help="hf:FOLDER, gguf:FILE, orbax:FOLDER, or a path alone")
    command.add_argument("folder", metavar="FOLDER", nargs="?", help="where it is exported to")

    command = add("import", "convert a model of another maker into a workdir, once", _IMPORT_EPILOG)
    command.add_argument("source", metavar="MODEL", help="hf:FOLDER, gguf:FILE, or a path alone")
    command.add_argument("--workdir", required=True, help="where it is put, in models/NAME")
    command.add_argument("--name", default="policy", help="its folder there (%(default)s)")
    command.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of its numbers (%(default)s)",
    )

    bench = add("bench", "measure the engine, alone or beside Hugging Face transformers")
    bench_cli.add_arguments(bench)

    grading.add_arguments(add("grade", "grade the answers of a file, beside another grader or the file's own verdicts"))

    add("version", "print the versions of ttcjax and jax")
    return parser


def version() -> str:
    """Return the versions of ttcjax and jax in a line."""
    from importlib.metadata import version as version_of

    return f"ttcjax {ttcjax.__version__}, jax {version_of('jax')}"


def prepared(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `data check` as one command, and those of `solve` in an order in which any question is
    one.

    What is no option of `solve` is its question, even if it begins with a dash.

    Raises:
        UserError: There are two questions.
    """
    if list(arguments[:2]) == CHECK.split():
        return [CHECK, *arguments[2:]]
    if not arguments or arguments[0] != "solve":
        return list(arguments)
    options, overrides, questions = [], [], []
    waiting = iter(arguments[1:])
    for argument in waiting:
        name, given, _ = argument.partition("=")
        if argument == "--":
            questions += waiting
        elif argument in ("-h", "--help"):
            options.append(argument)
        elif name in ("--workdir", "--strategy", "--seed") or re.fullmatch(r"--sampler\.\w[\w-]*", name):
            kept = overrides if name.startswith("--sampler.") else options
            kept += [argument] if given else [argument, *itertools.islice(waiting, 1)]
        else:
            questions.append(argument)
    odd = [text for text in questions if re.fullmatch(r"--?[A-Za-z][\w.-]*(=\S*)?", text)]
    if len(questions) > 1 and odd:
        raise UserError(f"solve has no option {odd[0]}; a question that looks like one stands after --")
    if not questions and any(" " in text for text in options):
        raise UserError("the question is missing; one that looks like an option stands after --")
    if len(questions) > 1:
        raise UserError(f"solve takes one question, not {len(questions)}: put it in quotes; see `ttcjax solve --help`")
    # The settings travel as one value, to be read once the run's own are known.
    travelling = [f"--sampler.SETTING={json.dumps(overrides)}"] if overrides else []
    return ["solve", *options, *travelling, *(["--", *questions] if questions else [])]


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what each stage would do; run and write nothing")
    parser.add_argument("--json", action="store_true", help="print the dry run as JSON")
    add_limit(parser)


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="N", type=int, help="the first N test questions alone (sweep.limit)")


def add_check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", metavar="FOLDER", help="look there, in .json, .jsonl, .txt and .md files")
    parser.add_argument("--run", metavar="WORDS", type=int, default=8, help="words of a run (%(default)s)")
    parser.add_argument("--share", type=float, default=0.5, help="least share of the runs (%(default)s)")
    parser.add_argument("--show", metavar="N", type=int, default=10, help="worst pairs to print (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print all pairs as JSON")
    add_limit(parser)


def add_sweep_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what is left and what it takes; run nothing")
    parser.add_argument("--json", action="store_true", help="print the dry run as JSON")
    parser.add_argument("--part", metavar="I/K", help="run the share of process I of K that share the workdir")
    add_limit(parser)


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", metavar="S", type=int, help="how many seeds, numbered from 0")
    add_run_flags(parser)
    parser.add_argument("--part", metavar="I/K", help="run the share of process I of K that share the workdir")
