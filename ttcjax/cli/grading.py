"""`ttcjax grade`: verdicts on the answers of a file, beside another grader's or the file's own."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import typing
from typing import Any

from ttcjax.cli import show
from ttcjax.config.convention import Convention
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import resolve

_EPILOG = """\
examples:
  ttcjax grade samples.jsonl                                  fields `answer` and `gold` of every line
  ttcjax grade samples.jsonl --text output --gold target      answers read out of whole solutions
  ttcjax grade samples.jsonl --second math-verify             where math-verify alone says otherwise
  ttcjax grade samples.jsonl --verdict is_correct --percent number

A field within a field is named with a dot, such as 6b_finetuning.solution. Every line must be a JSON object.
"""

_SHOWN_CHARS = 100
"""Of a longer answer its end is shown."""


def add_arguments(parser: Any) -> None:
    """Add the arguments of `ttcjax grade`."""
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", help="JSON lines with an answer and its reference")
    parser.add_argument("--answer", metavar="FIELD", default="answer", help="field with the answer (%(default)s)")
    parser.add_argument("--gold", metavar="FIELD", default="gold", help="field with the reference (%(default)s)")
    parser.add_argument("--text", metavar="FIELD", help="field with a solution that states the answer, for --answer")
    parser.add_argument("--verdict", metavar="FIELD", help="field with a verdict to compare with, true or false")
    parser.add_argument("--second", choices=["math-verify"], help="another grader to compare with")
    parser.add_argument("--limit", type=int, metavar="N", help="grade the first N lines")
    parser.add_argument("--json", action="store_true", help="print the counts and disagreements as JSON")
    group = parser.add_argument_group("what counts as the same answer (docs/grading.md)")
    for field in dataclasses.fields(Convention):
        kind = typing.get_type_hints(Convention)[field.name]
        options: dict[str, Any] = {"default": field.default, "help": "(%(default)s)"}
        if typing.get_origin(kind) is typing.Literal:
            options["choices"] = typing.get_args(kind)
        elif kind is bool:
            options |= {"type": _truth, "metavar": "True|False"}
        else:
            options |= {"type": kind, "metavar": "N"}
        group.add_argument(f"--{field.name}", **options)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def run(args: argparse.Namespace) -> None:
    """Grade a file and print what was found.

    Raises:
        UserError: The file is not there, a line is no JSON object, or a field is missing.
    """
    from ttcjax.text.grading import extract_answer, grade
    from ttcjax.text.grading.second import GRADERS, Grader, agreement

    settings = {field.name: getattr(args, field.name) for field in dataclasses.fields(Convention)}
    ours: Grader = functools.partial(grade, convention=Convention(**settings))
    rows = _rows(args)
    pairs = [
        (extract_answer(str(_field(row, args.text, i, "--text"))) if args.text else _text(row, args.answer, i), gold)
        for i, row in rows
        for gold in [str(_field(row, args.gold, i, "--gold"))]
    ]
    if args.verdict:
        theirs = iter([bool(_field(row, args.verdict, i, "--verdict")) for i, row in rows])
        others = {args.verdict: lambda answer, gold: next(theirs)}
    else:
        others = {args.second: GRADERS[args.second]} if args.second else {}
    right = sum(ours(answer, gold) for answer, gold in pairs)
    found = {name: agreement(pairs, second, ours) for name, second in others.items()}
    if args.json:
        counts = {"rows": len(pairs), "right": right, "without_answer": sum(answer is None for answer, _ in pairs)}
        print(json.dumps(counts | {"second": {name: dataclasses.asdict(one) for name, one in found.items()}}, indent=2))
        return
    lines = [f"{right:,} of {len(pairs):,} right ({right / max(len(pairs), 1):.1%})"]
    if missing := sum(answer is None for answer, _ in pairs):
        lines.append(f"{missing:,} without an answer")
    for name, one in found.items():
        lines.append(f"{name} agrees on {one.pairs - len(one.disagreements):,} of {one.pairs:,} ({one.share:.2%})")
        lines += [
            f"line {rows[d.place][0]}: {'right' if d.first else 'wrong'} here and not by {name}: "
            f"answer {_short(d.answer)}, reference {_short(d.gold)}"
            for d in one.disagreements
        ]
    show.print_lines(lines)


def _short(text: str | None) -> str:
    return repr(text if text is None or len(text) <= _SHOWN_CHARS else f"... {text[-_SHOWN_CHARS:]}")


def _rows(args: argparse.Namespace) -> list[tuple[int, dict[str, Any]]]:
    path = resolve(args.file, "FILE", kind="file")
    if not path.exists():
        raise UserError(f"there is no file {path}")
    found: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").split("\n"), 1):
        if args.limit is not None and len(found) >= args.limit:
            break
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is no JSON object: each line must be one")
        found.append((number, row))
    if not found:
        raise UserError(f"{path} has no lines to grade")
    return found


def _text(row: dict[str, Any], name: str, number: int) -> str | None:
    value = _field(row, name, number, "--answer")
    return None if value is None else str(value)


def _field(row: dict[str, Any], name: str, number: int, flag: str) -> Any:
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"line {number} has no field {name!r}; name another with {flag}: it has {', '.join(row)}")
        value = value[part]
    return value
