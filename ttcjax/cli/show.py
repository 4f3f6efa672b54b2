"""What commands print: reports and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttcjax.solve import Revised, Solved


def print_report(summary: dict[str, Any], workdir: str) -> None:
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


def print_revised(revised: Revised) -> None:
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


def print_solved(solved: Solved) -> None:
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
