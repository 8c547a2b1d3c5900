"""`routellm data`: clean preference data (duplicates, contamination), and convert them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from routellm_core.commands.options import (
    AsJson,
    Command,
    Embedding,
    From,
    SkipBad,
    check_output,
    console_for_tables,
    report_bad,
    report_joined,
)
from routellm_core.errors import ConfigurationError, DataError

app = typer.Typer(
    name="data",
    help="Check, clean and convert preference data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "-d",
        help="Outcomes or battles, in any of 'routellm data forms': JSON lines, JSON, CSV or parquet; may be given "
        "again. MODEL=FILE for a file that does not name its model.",
    ),
]


@app.command(cls=Command)
def clean(
    data: Data,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation set that training must not have seen: any file of prompts; may be given again."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write what is left.", show_default="only report")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Similarity from which prompts count as near duplicates.")] = 0.8,
    duplicates: Annotated[bool, typer.Option(help="Also look for repeats within the data.")] = True,
    show: Annotated[int, typer.Option(help="Findings to list by their row.", min=0)] = 10,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Leave repeated prompts out. Those of an evaluation set go, too, whether exactly or nearly the same.

    Exit code 1 if the evaluation set is contaminated and nothing was written (for use in a script).

    Example: routellm data clean --data train.jsonl --against benchmark.jsonl --out clean.jsonl
    """
    from routellm_core.data import SkippedRows, read_preferences, write_records
    from routellm_core.data.cleaning import CleaningReport, clean_records
    from routellm_core.data.joining import JoinReport

    if out is not None:
        check_output(out, data)
    bad, joined, report = SkippedRows(), JoinReport(), CleaningReport(limit=show)
    left = clean_records(
        read_preferences(data, form=form, skip_bad=bad if skip_bad else None, joined=joined),
        against=_prompts(against or []),
        threshold=threshold,
        duplicates=duplicates,
        report=report,
    )
    if out is not None:
        write_records(out, left)
    else:
        for _ in left:
            pass
    report_bad(bad)
    report_joined(joined)
    if as_json:
        print(json.dumps({**report.to_dict(), "skipped": bad.count, "out": out and str(out)}))
    else:
        print(f"{report.rows} rows, {report.evaluation_prompts} evaluation prompts")
        for count, exact, what in (
            (report.contaminated, report.contaminated_exact, "repeat an evaluation prompt"),
            (report.duplicates, report.duplicates_exact, "repeat an earlier row"),
        ):
            print(f"{count} {what} ({exact} exactly, {count - exact} nearly)")
        for item in report.found:
            name = f" ({item.id})" if item.id else ""
            other = "evaluation prompt" if item.kind == "contaminated" else "row"
            print(f"  row {item.row}{name}: {other} {item.of}, similarity {item.similarity:.2f}")
        print(f"{report.kept} rows left" + (f" -> {out}" if out else ""))
    if report.contaminated and out is None:
        raise typer.Exit(1)


@app.command(cls=Command)
def convert(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl, .csv (also .gz) or .parquet.")],
    battles: Annotated[bool, typer.Option("--battles", help="Turn outcomes into battles.")] = False,
    strong: Annotated[str | None, typer.Option(help="With --battles: only this model against --weak.")] = None,
    weak: Annotated[str | None, typer.Option(help="See --strong.", show_default="every pair")] = None,
    tie_margin: Annotated[float, typer.Option(help="Scores that differ by no more are a tie.", min=0.0)] = 0.0,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Convert between formats. From the Arena's form to battles, and from outcomes to battles, among others.

    Example: routellm data convert --data outcomes.csv --battles --out battles.jsonl.gz
    """
    from routellm_core.data import SkippedRows, outcomes_to_battles, read_preferences, write_records
    from routellm_core.data.joining import JoinReport
    from routellm_core.data.records import Outcome

    if (strong is None) != (weak is None) or (strong is not None and not battles):
        raise ConfigurationError("--strong and --weak go together, and with --battles")
    check_output(out, data)
    pair = None if strong is None or weak is None else (strong, weak)
    bad, joined = SkippedRows(), JoinReport()

    def rows() -> Iterator[Any]:
        for record in read_preferences(data, form=form, skip_bad=bad if skip_bad else None, joined=joined):
            if battles and isinstance(record, Outcome):
                yield from outcomes_to_battles([record], pair=pair, tie_margin=tie_margin)
            elif pair is None or (not isinstance(record, Outcome) and {record.model_a, record.model_b} == set(pair)):
                yield record

    found = rows()
    first = next(found, None)
    if first is None and pair is not None:
        raise DataError(
            f"{', '.join(map(str, data))}: no row compares {strong!r} with {weak!r}; are the names those of the data?"
        )
    count = write_records(out, () if first is None else chain([first], found))
    report_bad(bad)
    report_joined(joined)
    if as_json:
        print(
            json.dumps(
                {
                    "rows": count,
                    "skipped": bad.count,
                    "joined": joined.to_dict() if joined.joined else None,
                    "out": str(out),
                }
            )
        )
    else:
        print(f"{count} rows -> {out}", file=sys.stdout)


@app.command(cls=Command)
def store(
    data: Data,
    to: Annotated[
        str,
        typer.Option(help="milvus:FILE.db for a file of Milvus Lite, or milvus:http://HOST:19530 for a Milvus server."),
    ],
    collection: Annotated[str, typer.Option(help="Name of the collection, created if there is none.")] = "battles",
    embedder: Embedding = "bundled",
    index: Annotated[
        str, typer.Option(help="Index of a new collection: FLAT is exact; on a server, HNSW is faster for millions.")
    ] = "FLAT",
    batch: Annotated[int, typer.Option(help="Rows that are embedded and written at a time.", min=1)] = 1000,
    form: From = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Write battles or outcomes to a vector store. Routers search them there; only vectors are stored, not prompts.

    Rows that are there are left out, so a run that was interrupted can simply be repeated, and a file that has grown be
    written again. MILVUS_TOKEN, an environment variable, is USER:PASSWORD or the API key of a server. For the vector
    stores of LangChain and LlamaIndex, see docs/stores.md.

    Example: routellm data store --data battles.jsonl --to milvus:./battles.db
    """
    from routellm_core.commands.progress import progress_bar
    from routellm_core.data import SkippedRows, read_preferences
    from routellm_core.data.joining import JoinReport
    from routellm_core.embedders import embedder_from_name
    from routellm_core.stores import store_records

    kind, _, uri = to.partition(":")
    if kind != "milvus" or not uri:
        # not all of it: an address may contain a password
        raise ConfigurationError(f"--to begins with {kind!r}: expected milvus:FILE.db, or milvus:http://HOST:PORT")
    bad, joined = SkippedRows(), JoinReport()
    records = list(read_preferences(data, form=form, skip_bad=bad if skip_bad else None, joined=joined))
    with progress_bar("writing") as progress:
        report = store_records(
            records,
            uri,
            embedder=embedder_from_name(embedder),
            collection=collection,
            index=index,
            batch=batch,
            progress=progress,
        )
    report_bad(bad)
    report_joined(joined)
    if as_json:
        print(
            json.dumps(
                {
                    "written": report.written,
                    "present": report.present,
                    "skipped": bad.count,
                    "to": uri,
                    "collection": collection,
                }
            )
        )
    else:
        print(f"{report.written} rows written, {report.present} were there -> {uri}, collection {collection}")


@app.command(cls=Command)
def forms(as_json: AsJson = False) -> None:
    """List the forms of other tools that are read. It says what they hold and which commands they are for.

    A form is recognised by the content of a file; --from NAME of the other commands forces one.

    Example: routellm data forms --json
    """
    from routellm_core.data.forms import FORMS

    if as_json:
        print(
            json.dumps(
                [
                    {"name": f.name, "title": f.title, "holds": f.holds, "used_for": f.uses, "needs": f.needs or None}
                    for f in FORMS
                ]
            )
        )
        return
    from rich.table import Table

    table = Table("name", "what it is", "holds", "used for", box=None, pad_edge=False, header_style="bold")
    for form in FORMS:
        title = f"{form.title}; needs {form.needs}" if form.needs else form.title
        table.add_row(form.name, title, ", ".join(form.holds), ", ".join(form.uses))
    console_for_tables().print(table)
    print("Files of several models are joined by prompt or id: --data big=a.jsonl --data small=b.jsonl")


def _prompts(files: list[Path]) -> Iterator[str]:
    from routellm_core.data.prompts import read_prompts

    for file in files:
        yield from read_prompts(file)
