"""How the commands show an evaluation: the table of metrics, the verdict with what it was compared with, and notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from routellm_core.commands.options import console_for_tables
from routellm_core.report.escaping import printable
from routellm_core.report.results import (
    HEADER,
    PAPER,
    alternatives,
    alternatives_header,
    cascade_notes,
    cascade_rows,
    cascade_use,
    cost_notes,
    difference_text,
    left_out_notes,
    notes_of,
    score_text,
    table_rows,
    threshold_cost,
    unpriced_note,
    use_text,
)

_EXPLANATION = (
    "APGR: mean share of the gap between the models that is recovered, over all shares of strong calls (random: 0.5). "
    "CPT(50%): share of strong calls that recovers half of the gap (lower is better). "
    "Saving: random routing's strong calls as a multiple of the router's."
)


def show_results(results: Sequence[Mapping[str, Any]], *, guessed: int) -> None:
    """Print tables and verdicts.

    Args:
        results: What `evaluate_benchmark` returned.
        guessed: Of the results from this number on, the scores said which model is the strong one.
    """
    shown = _Terminal()
    for i, result in enumerate(results):
        shown.metrics(result, explain=i == 0)
        for router in result["routers"]:
            shown.verdict(result, router)
            shown.cascade(result, router)
        if len(result["routers"]) == 1:  # of several routers, the page shows it for each
            shown.compared(result, result["routers"][0])
        if i >= guessed:
            shown.note(
                f"{result['strong']} was taken as the strong model, by the mean scores; --strong and --weak say which "
                "is which"
            )
        for note in filter(None, (*cost_notes(result), *left_out_notes(result), unpriced_note(result))):
            shown.note(note)
        shown.console.print()


def show_verdict(result: Mapping[str, Any]) -> None:
    """Print the verdict on the only router of a result, what it was compared with, and what its costs rest on."""
    shown = _Terminal()
    shown.verdict(result, result["routers"][0])
    shown.compared(result, result["routers"][0])
    for note in filter(None, (*cost_notes(result), unpriced_note(result))):
        shown.note(note)


class _Terminal:
    """The parts of a result, as a terminal shows them."""

    def __init__(self) -> None:
        self.console = console_for_tables()

    def metrics(self, result: Mapping[str, Any], *, explain: bool) -> None:
        strong, weak = (
            f"{side} {result[side]} {score_text(result, result[f'{side}_quality'])}" for side in ("strong", "weak")
        )
        ours = len(result["routers"])
        rows = [
            ("bold" if j < ours else "dim" if row[0].startswith(PAPER) else "", row)
            for j, row in enumerate(table_rows(result))
        ]
        self._table(HEADER, rows, f"{result['title']}: {strong}, {weak}")
        if explain and any(router["metrics"]["apgr"]["value"] is not None for router in result["routers"]):
            self._say(_EXPLANATION, "dim", wrap=self.console.is_terminal)
        for c in result["comparisons"]:
            self._say(f"APGR, {c['first']} minus {c['second']}, paired: {difference_text(c['difference'])}")

    def verdict(self, result: Mapping[str, Any], router: Mapping[str, Any]) -> None:
        self._say(f"{router['name']}: {router['verdict']['sentence']}", wrap=self.console.is_terminal)
        if use := use_text(router):
            cost = threshold_cost(result, router)
            self._say(f"to use it: {use}{f'; {cost}' if cost else ''}", wrap=False)
        for note in notes_of(router):
            self.note(note)

    def cascade(self, result: Mapping[str, Any], router: Mapping[str, Any]) -> None:
        rows = cascade_rows(result, router)
        if not rows:
            return
        self._say(f"{router['name']}: {router['cascade']['sentence']}", wrap=self.console.is_terminal)
        if use := cascade_use(router):
            self._say(f"to use it: {use}", wrap=False)
        self._table(("cascade", ""), [("", row) for row in rows])
        for note in cascade_notes(result, router):
            self.note(note)

    def compared(self, result: Mapping[str, Any], router: Mapping[str, Any]) -> None:
        rows = [
            (name, score, cost, f"{gap} [{low}, {high}]" if gap else "")
            for name, score, cost, (gap, low, high) in alternatives(result, router)
        ]
        self._table(alternatives_header(result), [("", row) for row in rows])

    def note(self, words: str) -> None:
        self._say(f"note: {words}", "yellow")

    def _say(self, words: str, style: str = "", *, wrap: bool = True) -> None:
        self.console.print(Text(printable(words), style), soft_wrap=not wrap)

    def _table(
        self, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], title: str | None = None
    ) -> None:
        table = Table(
            title=None if title is None else Text(printable(title)), title_justify="left", box=None, pad_edge=False,
            header_style="bold",
        )  # fmt: skip
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left")
        for style, row in rows:
            # an interval on a line of its own, rather than broken anywhere, where there is no room
            cells = [cell if self.console.width >= 100 else cell.replace(" [", "\n[") for cell in map(printable, row)]
            table.add_row(*(Text(cell, style) for cell in cells))
        self.console.print(table)
