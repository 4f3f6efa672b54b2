"""A report as one page of HTML that needs nothing beside it: numbers, claims, figures, costs, settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ttcjax.eval.report import catalogue, claims, figures
from ttcjax.eval.report.report_files import read_csv
from ttcjax.eval.sections import baseline
from ttcjax.eval.stats import verdicts
from ttcjax.text.shown import shown

_MOST_ROWS = 40
"""Rows of a table of numbers on the page; the file beside it has all."""

_MOST_SEEDS = 5
"""Seeds whose values stand side by side in a cell; of more it has the range."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --soft: #5c5c5c; --line: #d9d9d9; --back: #ffffff; --card: #f5f6f8;
  --link: #0b5cad; --yes: #0a6b4b; --no: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --soft: #a9a9a9; --line: #3c3c3c; --back: #161616;
  --card: #222325; --link: #7db7f2; --yes: #55c79a; --no: #ff8a80; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink); background: var(--back);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
a { color: var(--link); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 2rem 0 .4rem; }
p { margin: .4rem 0 .8rem; }
.soft, .caption, figcaption, summary { color: var(--soft); }
.number { display: block; font-size: .8rem; font-weight: 600; color: var(--soft); letter-spacing: .02em; }
.keys { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0;
  padding: 0; list-style: none; }
.keys li { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.keys b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.keys span { font-size: .85rem; color: var(--soft); }
nav ol { columns: 2; column-gap: 2.5rem; padding-left: 1.2rem; margin: .3rem 0; font-size: .93rem; }
nav li { break-inside: avoid; margin: .15rem 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .3rem 0; }
.caption { margin: .6rem 0 .1rem; font-size: .88rem; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: var(--soft); }
td small { display: block; color: var(--soft); }
table.words td, table.words th { text-align: left; white-space: normal; overflow-wrap: break-word; }
table.words td small, table.words td b { white-space: nowrap; }
table.words b { font-weight: 400; }
.side { display: flex; flex-wrap: wrap; gap: .4rem 2.5rem; }
.side > div { min-width: 0; max-width: 100%; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .85rem; }
.yes { color: var(--yes); font-weight: 600; } .no { color: var(--no); font-weight: 600; }
.undecided, .not-measured, .not-applicable { color: var(--soft); }
figure { margin: .8rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .4rem; padding: .5rem;
  border: 1px solid var(--line); }
figcaption { font-size: .86rem; padding-top: .35rem; }
blockquote { margin: .5rem 0; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--line); }
blockquote p { margin: .2rem 0; }
details { margin: .4rem 0; } summary { cursor: pointer; font-size: .92rem; }
pre { overflow-x: auto; background: var(--card); border-radius: .4rem; padding: .8rem; font-size: .82rem;
  line-height: 1.4; }
@media (max-width: 40rem) { body { padding: 1rem .9rem 3rem; font-size: 15px; } nav ol { columns: 1; }
  .keys { grid-template-columns: 1fr 1fr; } .keys li { padding: .55rem .7rem; }
  figure .scroll img { width: 38rem; max-width: none; } table.words { min-width: 34rem; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --back: #fff; --card: #f3f3f3; --link: #000;
    --yes: #000; --no: #000; }
  body { max-width: none; font-size: 10pt; padding: 0; } nav, details:not([open]) { display: none; }
  figure, tr, li, h2, h3 { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding-right: .4rem; }
  figure .scroll img { width: auto; max-width: 100%; } table.words { min-width: 0; } }
"""


def html(
    summary: Mapping[str, Any], drawn: Mapping[str, bytes], files: Mapping[str, str], settings: Mapping[str, Any]
) -> str:
    """Return the page.

    Figures stand in it as images of their own, so that the ids inside them cannot clash.

    Args:
        summary: The content of `summary.json`, `claims` included.
        drawn: SVG of every figure of the run, by name.
        files: Text of every CSV file beside the page, by name without the ending.
        settings: The resolved config.
    """
    made = catalogue.in_order(drawn)
    papers = [name for name in made if (found := catalogue.entry(name)) is not None and found.number]
    own = [name for name in made if name not in papers]
    sections = [
        ("claims", "Claims of the paper", _claims(summary, made)),
        ("figures", "Figures of the paper", "".join(_figure(name, drawn[name], files) for name in papers)),
        ("missing-figures", "Figures that this run does not make", _not_made(drawn)),
        ("diagnostics", "Diagnostics", _diagnostics(summary, own, drawn, files)),
        *([("seeds", "Seeds", _seeds(summary))] if "seeds" in summary else []),
        ("costs", "Costs", _costs(summary)),
        ("settings", "Settings", _settings(summary, settings)),
    ]
    listed = []
    for anchor, title, _ in sections:
        inner = papers if anchor == "figures" else own if anchor == "diagnostics" else []
        items = "".join(f'<li><a href="#figure-{_text(name)}">{_text(_short(name))}</a></li>' for name in inner)
        listed.append(f'<li><a href="#{anchor}">{title}</a>{f"<ul>{items}</ul>" if items else ""}</li>')
    body = "".join(
        f'<section id="{anchor}"><h2>{title}</h2>{content}</section>\n' for anchor, title, content in sections
    )
    name = _text(summary["name"])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{name}: test-time compute</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<header><h1>{name}: test-time compute</h1>\n{_headline(summary, settings)}</header>\n"
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{"".join(listed)}</ol></nav>\n<main>\n{body}</main>\n'
        "</body>\n</html>\n"
    )


def _text(value: object, *, lines: bool = False) -> str:
    """Return text of anyone as HTML that shows it, see `ttcjax.text.shown`."""
    return escape(shown(str(value), lines=lines))


def _short(name: str) -> str:
    found = catalogue.entry(name)
    return name if found is None else catalogue.line(name)


def _headline(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    accuracy = figures.by_budget(dict(summary["accuracy"]))
    budgets = list(next(iter(accuracy.values())))
    largest = budgets[-1]
    data = settings.get("data", {}).get("name", "")
    text = (
        f"{summary['questions']} test questions{f' of {_text(data)}' if data else ''}, {summary['samples']} base "
        f"samples each, {len(accuracy)} strategies at budgets of {budgets[0]} to {largest} generations. After Snell et "
        f"al. 2024, Scaling LLM Test-Time Compute Optimally. Brackets and bands are 95% intervals. {certainty(summary)}"
    )
    best = max(accuracy, key=lambda name: accuracy[name][largest]["mean"])
    keys = [
        (_percent(summary["pass_at_1_interval"]["mean"]), "pass@1 of the policy", summary["pass_at_1_interval"]),
        (
            _percent(summary["greedy"]["accuracy"]["policy"]["mean"]),
            "one greedy answer of the policy",
            summary["greedy"]["accuracy"]["policy"],
        ),
        (
            _percent(accuracy[best][largest]["mean"]),
            f"{figures.label(best)} at N = {largest}, the best there",
            accuracy[best][largest],
        ),
        (
            _percent(summary["pass_at_k"][largest]["mean"]),
            f"some of {largest} samples right",
            summary["pass_at_k"][largest],
        ),
    ]
    saved = summary.get("compute_optimal", {}).get("oracle", {}).get("compute_saved", {})
    if (n := claims.budget_in_view(saved)) is not None:
        cell = saved[str(n)]
        keys.append(
            (
                f"{'' if cell['reached'] else 'at least '}{cell['times']:.1f} times",
                f"the compute that best-of-N weighted needs for the accuracy of {n} generations chosen by difficulty, "
                f"{cell['low']:.1f} to {cell['high']:.1f}{'' if cell['high_reached'] else ' or more'}",
                None,
            )
        )
    if "revision" in summary:
        step = summary["revision"]["pass_at_1_by_step"][0]
        keys.append((_percent(step["mean"]), "pass@1 of the revision model", step))
    if summary["prm"]["step_auroc"] is not None:
        keys.append((f"{summary['prm']['step_auroc']:.2f}", "step AUROC of the verifier", None))
    if summary.get("claims"):
        held, _, rest = verdicts.in_words(summary["claims"]).partition(" claims ")
        keys.append((held, f"claims {rest}", None))
    items = "".join(
        f"<li><b>{_text(value)}</b><span>{_text(what)}{_range(cell)}</span></li>" for value, what, cell in keys
    )
    lost = (
        f'<p class="no">{summary["missing"]} results are missing and count as wrong: '
        '<a href="missing.csv">missing.csv</a>.</p>'
        if summary["missing"]
        else ""
    )
    rows = [[_text(figures.label(name)), *(_cell(cell) for cell in cells.values())] for name, cells in accuracy.items()]
    rows.append(["any right (pass@N)", *(_cell(cell) for cell in summary["pass_at_k"].values())])
    once = summary["greedy"]
    rows += [
        [baseline.NAMES[model], _cell(cell), *[""] * (len(budgets) - 1)] for model, cell in once["accuracy"].items()
    ]
    table = _table(["N =", *budgets], rows, "Accuracy in % by generation budget N, 95% intervals")
    rows = [[_text(figures.label(name)), *map(_difference, cells.values())] for name, cells in once["minus"].items()]
    table += _table(["N =", *budgets], rows, "Less one greedy answer of the policy, in points, paired over questions")
    return f'<p>{text}</p>{lost}<ul class="keys">{items}</ul>{table}'


def certainty(summary: Mapping[str, Any]) -> str:
    """Return in words what the intervals of a report take for random."""
    count = len(summary.get("seeds", [0]))
    if count == 1:
        return "One seed: intervals are of questions alone, and models of another seed may give other numbers."
    return f"{count} seeds: means over them, intervals over seeds and questions; small print has each seed's value."


def _claims(summary: Mapping[str, Any], made: Sequence[str]) -> str:
    found = summary.get("claims", [])
    if not found:
        return "<p>No claim can be judged from this run.</p>"
    rows = [
        [
            _text(claim["claim"]),
            f'<span class="{_text(claim["held"].replace(" ", "-"))}">{_text(claim["held"])}</span>',
            _seen(claim),
            f"{_text(claim['paper'])}<small>{_source(claim['source'], made)}</small>",
        ]
        for claim in found
    ]
    table = _table(["claim", "held?", "seen here", "in the paper"], rows, words=True)
    return (
        f'<p class="soft">{_text(verdicts.RULE)} A claim on which this run has no numbers is left out. '
        f'All in <a href="claims.csv">claims.csv</a>.</p>{table}'
    )


def _source(source: str, made: Sequence[str]) -> str:
    """Return the name of a figure of the paper, as a link to ours where there is one."""
    name = catalogue.of_source(source, made)
    text = _text(source)
    return text if name is None else f'<a href="#figure-{_text(name)}">{text}</a>'


def _seen(claim: Mapping[str, Any]) -> str:
    value, _, interval = verdicts.seen(dict(claim)).partition(" (")
    return f"<b>{_text(value)}</b><small>{_text(interval.rstrip(')'))}</small>{_by_seed(claim)}"


def _figure(name: str, svg: bytes, files: Mapping[str, str]) -> str:
    found = catalogue.entry(name)
    title = name if found is None else found.title
    number = f'<span class="number">{_text(found.number)}</span>' if found is not None and found.number else ""
    claim = ""
    if found is not None:
        who = "The paper" if found.number else "What to look for"
        claim = f'<blockquote><p class="soft">{who}</p><p>{_text(found.claim)}</p></blockquote>'
    names = [table for table in (found.tables if found is not None else ()) if table in files]
    links = ", ".join(f'<a href="{_text(file)}">{_text(file)}</a>' for file in _beside(name, names))
    source = base64.b64encode(svg).decode()
    alt = f"{title}, drawn" + (f" from the numbers of {' and '.join(f'{t}.csv' for t in names)}" if names else "")
    numbers = "".join(_numbers(table, files[table]) for table in names)
    return (
        f'<article id="figure-{_text(name)}"><h3>{number}{_text(title)}</h3>{claim}'
        f'<figure><div class="scroll"><img src="data:image/svg+xml;base64,{source}" alt="{_text(alt)}"></div>'
        f"<figcaption>Files: {links}</figcaption></figure>{numbers}</article>\n"
    )


def _beside(name: str, tables: Sequence[str]) -> list[str]:
    return [f"{name}.svg", f"{name}.png", *(f"{table}.csv" for table in tables)]


def _numbers(name: str, text: str) -> str:
    """Return a CSV file as a table to be unfolded: budgets side by side where it has them."""
    header, *lines = read_csv(text)
    header, rows = pivot(header, lines)
    more = ""
    if len(rows) > _MOST_ROWS:
        more = f'<p class="soft">The first {_MOST_ROWS} of {len(rows)} rows; all in {_text(name)}.csv.</p>'
    table = _table([escape(cell) for cell in header], [[_split(cell) for cell in row] for row in rows[:_MOST_ROWS]])
    return f"<details><summary>Numbers of {_text(name)}.csv</summary>{table}{more}</details>"


def pivot(header: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return a table with estimates and their intervals in one cell each, and one column a budget.

    Args:
        header: Names of columns; `mean`, `low` and `high`, or `value`, are numbers, `budget` is spread out.
        rows: As many cells each.

    Returns:
        The new header and rows, in the order in which their keys first stand; `a (b to c)` is an interval.
    """
    place = {name: i for i, name in enumerate(header)}
    numbers = [name for name in ("mean", "low", "high", "value") if name in place]
    keys = [name for name in header if name not in numbers and name != "budget"]
    found: dict[tuple[str, ...], dict[str, str]] = {}
    budgets: dict[str, None] = {}
    for row in rows:
        cell = _short_number(row[place[numbers[0]]]) if numbers else ""
        ends = [_short_number(row[place[name]]) for name in ("low", "high") if name in place]
        if cell and len(ends) == 2 and all(ends):
            cell += f" ({ends[0]} to {ends[1]})"
        budget = row[place["budget"]] if "budget" in place else "estimate"
        budgets[budget] = None
        found.setdefault(tuple(row[place[name]] for name in keys), {})[budget] = cell
    spread = [f"N = {b}" if "budget" in place else b for b in budgets] if numbers else []
    return [*keys, *spread], [[*key, *(cells.get(b, "") for b in budgets if numbers)] for key, cells in found.items()]


def _short_number(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"


def _split(cell: str) -> str:
    """Return a cell of a CSV file, where text is as it is shown already."""
    value, _, interval = cell.partition(" (")
    return escape(value) + (f"<small>{escape(interval.rstrip(')'))}</small>" if interval else "")


def _not_made(drawn: Mapping[str, bytes]) -> str:
    rows = [
        [_text(found.number or "of our own"), _text(found.title), _text(found.switch)]
        for found in catalogue.FIGURES
        if found.name not in drawn
    ]
    others = [[_text(number), _text(what), "(no figure of a report)"] for number, what in catalogue.OTHERS]
    return _table(["figure", "what it shows", "given by"], rows + others, words=True)


def _diagnostics(
    summary: Mapping[str, Any], own: Sequence[str], drawn: Mapping[str, bytes], files: Mapping[str, str]
) -> str:
    prm = summary["prm"]
    rows = [
        ["answers of the policy that cannot be read", f"{100 * summary['unparsable']:.1f}%"],
        ["verifier: step AUROC against the truth of steps", _number(prm["step_auroc"])],
        ["verifier: F1 of the first wrong step", _number(prm["first_error_f1"])],
        [
            "verifier: threshold of a wrong step",
            f"{prm['first_error_threshold']:.2f} ({_text(prm['first_error_threshold_source'])})",
        ],
        [f"verifier: expected calibration error, {prm['ece_steps']} steps", _number(prm["ece"])],
        [f"verifier: Brier score, {prm['ece_steps']} steps", _number(prm["brier"])],
        ["results that should exist and do not", str(summary["missing"])],
    ]
    parts = [_table(["measure", "value"], rows)]
    levels = summary["per_level"]
    if levels:
        names = list(next(iter(levels.values()))["accuracy"])
        lines = [["questions", *(str(level["count"]) for level in levels.values())]]
        lines.append(["pass@1", *(_cell(level["pass_at_1"]) for level in levels.values())])
        lines += [
            [_text(figures.label(name)), *(_cell(level["accuracy"][name]) for level in levels.values())]
            for name in names
        ]
        lines += [
            [baseline.NAMES[model], *(_cell(level["greedy"][model]) for level in levels.values())]
            for model in summary["greedy"]["accuracy"]
        ]
        parts.append("<h3>By level of the data set</h3>")
        parts.append(_table(["level", *map(_text, levels)], lines, "Accuracy in % at the largest budget"))
    parts.append(_temperatures(summary["temperatures"].get("validation")))
    parts += [_figure(name, drawn[name], files) for name in own]
    parts.append(_examples(summary.get("over_optimisation", {}).get("examples", [])))
    parts.append(_revised(summary.get("revision", {}).get("examples", [])))
    return "".join(parts)


def _temperatures(found: Mapping[str, Any] | None) -> str:
    """Return accuracies on validation by temperature, and the temperature that each cell was then tested at."""
    if found is None:
        return ""
    parts = []
    for name, by_temperature in found["accuracy"].items():
        won = found["chosen"][name]
        rows = [[_text(t), *map(_cell, cells.values())] for t, cells in by_temperature.items()]
        rows.append(["chosen, and used on the test questions", *(f"{t:g}" for t in won.values())])
        caption = f"{_text(figures.label(name))}: accuracy in % on {found['questions']} validation questions"
        parts.append(_table(["temperature, N =", *won], rows, caption))
    link = '<a href="temperatures.csv">temperatures.csv</a>'
    return f"<h3>Temperatures chosen on validation questions</h3>{''.join(parts)}<p>Numbers: {link}</p>"


def _examples(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the wrong answers that the verifier likes best, step by step; the text is a model's."""
    if not found:
        return ""
    parts = []
    for example in found:
        title = f"{figures.label(example['strategy'])}, N = {example['n']}, question {example['question']}"
        steps = [(_text(text, lines=True), f"{score:.3f}") for text, score in example["steps"]]
        rows = [[f'<span class="text">{text}</span>', score] for text, score in steps]
        table = _table(["step", "score"], rows, _text(title))
        parts.append(f'<div>{table}<p class="caption">The right answer is {_text(example["gold"])}.</p></div>')
    return f'<h3>Wrong answers that the verifier likes best</h3><div class="side">{"".join(parts)}</div>'


def _revised(found: Sequence[Mapping[str, Any]]) -> str:
    """Return chains of answers in which a right one follows a wrong one, or the other way round."""
    if not found:
        return ""
    parts = []
    for example in found:
        rows = [
            [
                str(number),
                f'<span class="text">{_text(answer["text"], lines=True)}</span>',
                '<span class="yes">right</span>' if answer["correct"] else '<span class="no">wrong</span>',
                _number(answer["score"]),
            ]
            for number, answer in enumerate(example["answers"], 1)
        ]
        table = _table(["", "answer", "", "score"], rows, f"question {_text(example['question'])}", words=True)
        parts.append(f'<div>{table}<p class="caption">The right answer is {_text(example["gold"])}.</p></div>')
    return f'<h3>Revisions that turn an answer</h3><div class="side">{"".join(parts)}</div>'


def _seeds(summary: Mapping[str, Any]) -> str:
    """Return what each run of a study has: its accuracies, its claims, where it lies."""
    runs = summary["seeds"]
    accuracy = figures.by_budget(dict(summary["accuracy"]))
    largest = list(next(iter(accuracy.values())))[-1]
    cells = {"pass@1": summary["pass_at_1_interval"]}
    cells |= {figures.label(name): points[largest] for name, points in accuracy.items()}
    rows = [
        [_text(name), *(f"{100 * value:.1f}" for value in cell["per_seed"]), _cell({**cell, "per_seed": []})]
        for name, cell in cells.items()
    ]
    for verdict in dict.fromkeys(("yes", "no", *(claim["held"] for claim in summary["claims"]))):
        counts = [sum(c["held_per_seed"][i] == verdict for c in summary["claims"]) for i in range(len(runs))]
        overall = sum(claim["held"] == verdict for claim in summary["claims"])
        rows.append([f"claims: {verdict}", *map(str, counts), str(overall)])
    rows.append(["seconds", *(f"{run['seconds']:.0f}" for run in runs), ""])
    links = [f'<a href="../{_text(run["workdir"])}/report/index.html">{run["seed"]}</a>' for run in runs]
    table = _table(
        ["seed", *links, "all"], rows, f"Accuracy in % at N = {_text(largest)}, claims and time of each seed"
    )
    return f'<p class="soft">{certainty(summary)} Every number: <a href="seeds.csv">seeds.csv</a>.</p>{table}'


def _costs(summary: Mapping[str, Any]) -> str:
    seconds = summary.get("seconds", {})
    rows = [[_text(stage), f"{value:.1f}"] for stage, value in seconds.items()]
    rows.append(["all stages", f"{sum(seconds.values()):.1f}"])
    rows.append(["of it compiling", f"{summary.get('compile_seconds', 0.0):.1f}"])
    parts = [_table(["stage", "seconds"], rows, "Time of each stage of this run")]
    if summary.get("peak_rss_bytes"):
        parts.append(f"<p>Peak memory: {summary['peak_rss_bytes'] / 1e9:.2f} GB.</p>")
    compute = summary.get("compute")
    if compute is not None:
        cells = compute["per_question"]
        budgets = list(next(iter(cells.values())))
        lines = [
            [_text(figures.label(name)), *(f"{cell['flops']:.3g}" for cell in by_budget.values())]
            for name, by_budget in cells.items()
        ]
        lines += [
            [baseline.NAMES[model], f"{cell['flops']:.3g}", *[""] * (len(budgets) - 1)]
            for model, cell in compute.get("greedy", {}).items()
        ]
        caption = "FLOPs of a question: two a parameter and token, the verifier's included"
        parts.append(_table(["N =", *budgets], lines, caption))
        lines = [
            [
                _text(name),
                f"{model['params']:,}",
                f"{model['tokens']:,}",
                f"{model['flops']:.3g}",
                f"{model['data_flops']:.3g}" if "data_flops" in model else "",
            ]
            for name, model in compute["training"].items()
        ]
        columns = ["model", "parameters", "tokens", "FLOPs", "FLOPs of sampling its data"]
        parts.append(_table(columns, lines, "Training: six a parameter and token; sampling: two"))
    return "".join(parts)


def _settings(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    text = escape(json.dumps(settings, indent=2))  # ASCII, and controls are escapes already
    return (
        f"<p>Config {_text(summary['name'])}, hash <code>{_text(summary['config_hash'])}</code>.</p>"
        f"<details><summary>The resolved config</summary><pre>{text}</pre></details>"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, words: bool = False) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: HTML of the head's cells.
        rows: HTML of the others.
        caption: HTML above it.
        words: Whether cells hold text that may be broken into lines.
    """
    kind = ' class="words"' if words else ""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    # Not a caption of HTML's own, which is as narrow as its table.
    title = f'<p class="caption">{caption}</p>' if caption else ""
    label = caption or "table"
    return (
        f'{title}<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table{kind}>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _cell(point: Mapping[str, Any]) -> str:
    ends = f"<small>{100 * point['low']:.0f}-{100 * point['high']:.0f}</small>"
    return f"{100 * point['mean']:.1f}{ends}{_by_seed(point, 100.0)}"


def _by_seed(point: Mapping[str, Any], by: float = 1.0) -> str:
    """Return the values of several seeds below an estimate over them; of many the range."""
    values = point.get("per_seed", [])
    if len(values) < 2:
        return ""
    told = ["n/a" if value is None else f"{by * value:.1f}" for value in values]
    known = [by * value for value in values if value is not None]
    if len(told) > _MOST_SEEDS and known:
        return f"<small>{min(known):.1f}..{max(known):.1f}</small>"
    return f"<small>{' '.join(told)}</small>"


def _difference(point: Mapping[str, Any]) -> str:
    return f"{100 * point['mean']:+.1f}<small>{100 * point['low']:.1f} to {100 * point['high']:.1f}</small>"


def _range(cell: Mapping[str, Any] | None) -> str:
    return "" if cell is None else f", {100 * cell['low']:.1f} to {100 * cell['high']:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
