"""Output of commands: reports, answers and lines. All text in it is shown as `ttcjax.text.shown` says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ttcjax.text.shown import one_line

if TYPE_CHECKING:
    from etils import epath

    from ttcjax.config import ExperimentConfig
    from ttcjax.data.overlap.matches import Found
    from ttcjax.pipeline.solve import Solved
    from ttcjax.pipeline.stages import Stage


def print_lines(lines: Iterable[str]) -> None:
    """Print each string as one line, such as those with paths and commands that the user typed."""
    for text in lines:
        print(one_line(text))


def print_overlap(found: Found, searched: str, pairs: int) -> None:
    """Print how many test questions were found, by what they have in common, and the worst pairs.

    Args:
        found: The matches.
        searched: What they were looked for in.
        pairs: How many to print.
    """
    from ttcjax.data.overlap.matches import KINDS

    print_lines([f"{len(found.matches):,} of {found.tested:,} test questions found in {found.searched:,} {searched}"])
    print_lines(f"{count:6,} {KINDS[kind]}" for kind, count in found.counts.items() if count)
    for match in found.matches[: max(pairs, 0)]:
        how = f"{KINDS[match.kind]}, {match.share:.0%}" if match.kind == "words" else KINDS[match.kind]
        print_lines([f"{match.id} is in {match.where}: {how}"])
        print_lines(f"    {_shortened(text)}" for text in (match.question, match.text))


def _shortened(text: str, most: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 3]}..."


def print_report(summary: dict[str, Any], workdir: str) -> None:
    from etils import epath

    from ttcjax.eval.report import catalogue, summary_file
    from ttcjax.eval.report.report import render
    from ttcjax.text import terminal

    console = terminal.console()
    render(summary_file.decode(summary), console)
    folder = epath.Path(workdir)
    report = folder / "report"
    figures = catalogue.in_order(path.stem for path in report.iterdir() if path.suffix == ".png")
    lines = [f"{catalogue.line(name)}: {report / f'{name}.png'}" for name in figures]
    if (report / "index.html").exists():  # reports made before there was a page have none
        lines.append(f"all of it on one page: {report / 'index.html'}")
    for text in ("", *lines, f"every number: {folder / 'summary.json'}"):
        console.print(terminal.Shown(text, lines=False), soft_wrap=True)


def print_first(config: ExperimentConfig, stage: Stage, workdir: epath.Path) -> None:
    """Print what a stage alone tells of accuracy, long before the report: greedy answers, and the bank's samples."""
    if stage.name in ("bank", "greedy"):
        from ttcjax.eval.report import report
        from ttcjax.text import terminal

        render = report.render_first if stage.name == "bank" else report.render_greedy
        render(config, workdir, terminal.console())


def print_study(summary: dict[str, Any], workdir: str) -> None:
    from etils import epath

    from ttcjax.eval.report import study_report, summary_file
    from ttcjax.text import terminal

    console = terminal.console()
    study_report.render(summary_file.decode(summary, study_report.SUMMARY), console)
    for text in ("", *study_report.lines(epath.Path(workdir))):
        console.print(terminal.Shown(text, lines=False), soft_wrap=True)


def _print_chains(solved: Solved) -> None:
    from rich.console import Group

    from ttcjax.text.terminal import SafeTable, Shown, console

    out = console()
    out.print(Shown(f"{solved.question}\n"))
    for number, chain in enumerate(solved.chains):
        title = f"chain {number + 1} of {len(solved.chains)}" if len(solved.chains) > 1 else "answers"
        headers = ("", "answer", "score", "steps, the new ones marked")
        table = SafeTable(*headers, title=title, title_justify="left", box=None)
        for place, reply in enumerate(chain):
            steps = Group(
                *(Shown(f"{'+' if new else ' '} {step}", "bold" if new else "dim") for step, new in reply.steps)
            )
            mark = "*" if (number, place) == solved.chosen else "" if reply.kept is not False else "not kept"
            answer = Shown("(none)" if reply.answer is None else reply.answer, lines=False)
            table.add_row(f"{place + 1}{mark and f' {mark}'}", answer, f"{reply.score:.3f}", steps)
        out.print(table, "")
    work = f"{solved.generations} generations, {solved.seconds:.1f} s"
    if solved.answer is None:
        out.print(f"answer: no answer could be read   ({work})")
    else:
        out.print(Shown(f"answer: {solved.answer}   (* above, {work})", lines=False))


def print_solved(solved: Solved) -> None:
    if solved.chains:
        _print_chains(solved)
        return
    from ttcjax.text.terminal import SafeTable, Shown, console

    steps = SafeTable("step", "score", title="best solution", title_justify="left", box=None)
    for text, score in solved.steps:
        steps.add_row(text, f"{score:.3f}")
    votes = SafeTable("answer", "weight", "candidates", title="votes", title_justify="left", box=None)
    for answer, weight, count in solved.votes:
        name = Shown("(none that could be read)" if answer is None else answer, lines=False)
        votes.add_row(name, f"{weight:.3f}", str(count))
    answer = "no answer could be read" if solved.answer is None else solved.answer
    out = console()
    out.print(Shown(solved.question), steps, votes, "")
    work = f"{solved.generations} generations, {solved.seconds:.1f} s"
    out.print(Shown(f"answer: {answer}   ({work})", lines=False))
