"""A report as one page of HTML that needs nothing beside it: numbers, claims, figures, costs, settings."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from ttcjax.eval.report import catalogue, verdicts
from ttcjax.eval.report.drawing import figures, markup
from ttcjax.eval.report.report_files import read_csv
from ttcjax.eval.report.section import Summary
from ttcjax.eval.report.verdicts import Claim
from ttcjax.eval.sections import accuracy, base_samples, baseline
from ttcjax.eval.sections.revising import revisions
from ttcjax.eval.sections.spending import optimal
from ttcjax.eval.sections.verifying import verifier_quality
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.eval.stats.savings import budget_in_view

_MOST_ROWS = 40
"""Rows of a table of numbers on the page; the file beside it has all."""

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


def html(summary: Summary, drawn: Mapping[str, bytes], files: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Return the page.

    Figures stand in it as images of their own, so that the ids inside them cannot clash.

    Args:
        summary: What the report says, with claims and times.
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
        *([("seeds", "Seeds", _seeds(summary))] if summary.seeds else []),
        ("costs", "Costs", _costs(summary)),
        ("settings", "Settings", _settings(summary, settings)),
    ]
    listed = []
    for anchor, title, _ in sections:
        inner = papers if anchor == "figures" else own if anchor == "diagnostics" else []
        items = "".join(
            f'<li><a href="#figure-{markup.text(name)}">{markup.text(_short(name))}</a></li>' for name in inner
        )
        listed.append(f'<li><a href="#{anchor}">{title}</a>{f"<ul>{items}</ul>" if items else ""}</li>')
    body = "".join(
        f'<section id="{anchor}"><h2>{title}</h2>{content}</section>\n' for anchor, title, content in sections
    )
    name = markup.text(summary.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{name}: test-time compute</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<header><h1>{name}: test-time compute</h1>\n{_headline(summary, settings)}</header>\n"
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{"".join(listed)}</ol></nav>\n<main>\n{body}</main>\n'
        "</body>\n</html>\n"
    )


def _short(name: str) -> str:
    found = catalogue.entry(name)
    return name if found is None else catalogue.line(name)


def _headline(summary: Summary, settings: Mapping[str, Any]) -> str:
    strategies, sampled = summary.of(accuracy.SECTION).strategies, summary.of(base_samples.SECTION)
    once = summary.of(baseline.SECTION)
    budgets = summary.of(accuracy.SECTION).budgets
    data = settings.get("data", {}).get("name", "")
    text = (
        f"{summary.questions} test questions{f' of {markup.text(data)}' if data else ''}, {sampled.samples} base "
        f"samples each, {len(strategies)} strategies at budgets of {budgets[0]} to {budgets[-1]} generations. After "
        "Snell et al. 2024, Scaling LLM Test-Time Compute Optimally. Brackets and bands are 95% intervals. "
        f"{certainty(summary)}"
    )
    items = "".join(
        f"<li><b>{markup.text(value)}</b><span>{markup.text(what)}{markup.between(cell)}</span></li>"
        for value, what, cell in _keys(summary)
    )
    lost = (
        f'<p class="no">{summary.missing} results are missing and count as wrong: '
        '<a href="missing.csv">missing.csv</a>.</p>'
        if summary.missing
        else ""
    )
    header = ["N =", *map(str, budgets)]
    rows = [[markup.text(figures.label(name)), *map(markup.cell, cells.values())] for name, cells in strategies.items()]
    rows.append(["any right (pass@N)", *map(markup.cell, sampled.pass_at_k.values())])
    rows += [
        [baseline.NAMES[model], markup.cell(cell), *[""] * (len(budgets) - 1)] for model, cell in once.accuracy.items()
    ]
    table = markup.table(header, rows, "Accuracy in % by generation budget N, 95% intervals")
    rows = [
        [markup.text(figures.label(name)), *map(markup.difference, cells.values())]
        for name, cells in once.minus.items()
    ]
    table += markup.table(header, rows, "Less one greedy answer of the policy, in points, paired over questions")
    return f'<p>{text}</p>{lost}<ul class="keys">{items}</ul>{table}'


def _keys(summary: Summary) -> list[tuple[str, str, Estimate | None]]:
    """Return (value, what it is, interval to stand behind that) of the numbers at the head of the page."""
    strategies, sampled = summary.of(accuracy.SECTION).strategies, summary.of(base_samples.SECTION)
    largest = summary.of(accuracy.SECTION).budgets[-1]
    best = max(strategies, key=lambda name: strategies[name][largest].mean)
    shares = {
        "pass@1 of the policy": sampled.pass_at_1_interval,
        "one greedy answer of the policy": summary.of(baseline.SECTION).accuracy["policy"],
        f"{figures.label(best)} at N = {largest}, the best there": strategies[best][largest],
        f"some of {largest} samples right": sampled.pass_at_k[largest],
    }
    keys: list[tuple[str, str, Estimate | None]] = [
        (markup.percent(cell.mean), what, cell) for what, cell in shares.items()
    ]
    chosen = summary.get(optimal.SECTION)
    saved = {} if chosen is None or chosen.oracle is None else chosen.oracle.compute_saved
    if (n := budget_in_view(saved)) is not None:
        least, more = "" if saved[n].reached else "at least ", "" if saved[n].high_reached else " or more"
        what = (
            f"the compute that best-of-N weighted needs for the accuracy of {n} generations chosen by difficulty, "
            f"{saved[n].low:.1f} to {saved[n].high:.1f}{more}"
        )
        keys.append((f"{least}{saved[n].times:.1f} times", what, None))
    if (revised := summary.get(revisions.SECTION)) is not None:
        step = revised.pass_at_1_by_step[0]
        keys.append((markup.percent(step.mean), "pass@1 of the revision model", step))
    if math.isfinite(auroc := summary.of(verifier_quality.SECTION).step_auroc):
        keys.append((f"{auroc:.2f}", "step AUROC of the verifier", None))
    if summary.claims:
        held, _, rest = verdicts.in_words(summary.claims).partition(" claims ")
        keys.append((held, f"claims {rest}", None))
    return keys


def certainty(summary: Summary) -> str:
    """Return in words what the intervals of a report take for random."""
    count = max(len(summary.seeds), 1)
    if count == 1:
        return "One seed: intervals are of questions alone, and models of another seed may give other numbers."
    return f"{count} seeds: means over them, intervals over seeds and questions; small print has each seed's value."


def _claims(summary: Summary, made: Sequence[str]) -> str:
    if not summary.claims:
        return "<p>No claim can be judged from this run.</p>"
    rows = [
        [
            markup.text(claim.claim),
            f'<span class="{markup.text(claim.held.replace(" ", "-"))}">{markup.text(claim.held)}</span>',
            _seen(claim),
            f"{markup.text(claim.paper)}<small>{_source(claim.source, made)}</small>",
        ]
        for claim in summary.claims
    ]
    table = markup.table(["claim", "held?", "seen here", "in the paper"], rows, words=True)
    return (
        f'<p class="soft">{markup.text(verdicts.RULE)} A claim on which this run has no numbers is left out. '
        f'All in <a href="claims.csv">claims.csv</a>.</p>{table}'
    )


def _source(source: str, made: Sequence[str]) -> str:
    """Return the name of a figure of the paper, as a link to ours where there is one."""
    name = catalogue.of_source(source, made)
    text = markup.text(source)
    return text if name is None else f'<a href="#figure-{markup.text(name)}">{text}</a>'


def _seen(claim: Claim) -> str:
    value, _, interval = verdicts.seen(claim).partition(" (")
    by_seed = markup.by_seed(claim.per_seed)
    return f"<b>{markup.text(value)}</b><small>{markup.text(interval.rstrip(')'))}</small>{by_seed}"


def _figure(name: str, svg: bytes, files: Mapping[str, str]) -> str:
    found = catalogue.entry(name)
    title = name if found is None else found.title
    number = f'<span class="number">{markup.text(found.number)}</span>' if found is not None and found.number else ""
    claim = ""
    if found is not None:
        who = "The paper" if found.number else "What to look for"
        claim = f'<blockquote><p class="soft">{who}</p><p>{markup.text(found.claim)}</p></blockquote>'
    names = [table for table in (found.tables if found is not None else ()) if table in files]
    links = ", ".join(f'<a href="{markup.text(file)}">{markup.text(file)}</a>' for file in _beside(name, names))
    source = base64.b64encode(svg).decode()
    alt = f"{title}, drawn" + (f" from the numbers of {' and '.join(f'{t}.csv' for t in names)}" if names else "")
    numbers = "".join(_numbers(table, files[table]) for table in names)
    return (
        f'<article id="figure-{markup.text(name)}"><h3>{number}{markup.text(title)}</h3>{claim}'
        f'<figure><div class="scroll"><img src="data:image/svg+xml;base64,{source}" alt="{markup.text(alt)}"></div>'
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
        more = f'<p class="soft">The first {_MOST_ROWS} of {len(rows)} rows; all in {markup.text(name)}.csv.</p>'
    table = markup.table(
        [escape(cell) for cell in header], [[_split(cell) for cell in row] for row in rows[:_MOST_ROWS]]
    )
    return f"<details><summary>Numbers of {markup.text(name)}.csv</summary>{table}{more}</details>"


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
        [markup.text(found.number or "of our own"), markup.text(found.title), markup.text(found.switch)]
        for found in catalogue.figures()
        if found.name not in drawn
    ]
    others = [[markup.text(number), markup.text(what), "(no figure of a report)"] for number, what in catalogue.OTHERS]
    return markup.table(["figure", "what it shows", "given by"], rows + others, words=True)


def _diagnostics(summary: Summary, own: Sequence[str], drawn: Mapping[str, bytes], files: Mapping[str, str]) -> str:
    found = list(catalogue.found(summary))
    rows = [
        [markup.text(name), markup.text(value)] for section, values in found for name, value in section.measures(values)
    ]
    rows.append(["results that should exist and do not", str(summary.missing)])
    return "".join(
        [
            markup.table(["measure", "value"], rows),
            *(section.html(values, summary) for section, values in found),
            *(_figure(name, drawn[name], files) for name in own),
        ]
    )


def _seeds(summary: Summary) -> str:
    """Return what each run of a study has: its accuracies, its claims, where it lies."""
    strategies = summary.of(accuracy.SECTION).strategies
    largest = summary.of(accuracy.SECTION).budgets[-1]
    cells = {"pass@1": summary.of(base_samples.SECTION).pass_at_1_interval}
    cells |= {figures.label(name): points[largest] for name, points in strategies.items()}
    rows = [
        [
            markup.text(name),
            *("n/a" if value is None else f"{100 * value:.1f}" for value in cell.per_seed),
            markup.cell(replace(cell, per_seed=())),
        ]
        for name, cell in cells.items()
    ]
    for verdict in dict.fromkeys(("yes", "no", *(claim.held for claim in summary.claims))):
        counts = [sum(c.held_per_seed[i] == verdict for c in summary.claims) for i in range(len(summary.seeds))]
        overall = sum(claim.held == verdict for claim in summary.claims)
        rows.append([f"claims: {verdict}", *map(str, counts), str(overall)])
    rows.append(["seconds", *(f"{run.seconds:.0f}" for run in summary.seeds), ""])
    links = [f'<a href="../{markup.text(run.workdir)}/report/index.html">{run.seed}</a>' for run in summary.seeds]
    caption = f"Accuracy in % at N = {largest}, claims and time of each seed"
    table = markup.table(["seed", *links, "all"], rows, caption)
    return f'<p class="soft">{certainty(summary)} Every number: <a href="seeds.csv">seeds.csv</a>.</p>{table}'


def _costs(summary: Summary) -> str:
    rows = [[markup.text(stage), f"{value:.1f}"] for stage, value in summary.seconds.items()]
    rows.append(["all stages", f"{sum(summary.seconds.values()):.1f}"])
    rows.append(["of it compiling", f"{summary.compile_seconds:.1f}"])
    parts = [markup.table(["stage", "seconds"], rows, "Time of each stage of this run")]
    if summary.peak_rss_bytes:
        parts.append(f"<p>Peak memory: {summary.peak_rss_bytes / 1e9:.2f} GB.</p>")
    return "".join([*parts, *(section.costs(found) for section, found in catalogue.found(summary))])


def _settings(summary: Summary, settings: Mapping[str, Any]) -> str:
    text = escape(json.dumps(settings, indent=2))  # ASCII, and controls are escapes already
    return (
        f"<p>Config {markup.text(summary.name)}, hash <code>{markup.text(summary.config_hash)}</code>.</p>"
        f"<details><summary>The resolved config</summary><pre>{text}</pre></details>"
    )
