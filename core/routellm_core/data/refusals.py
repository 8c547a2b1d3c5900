"""What is said about files that cannot be used as they are: the fields seen, the nearest form, the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from routellm_core.data.files import Row, shown_names
from routellm_core.data.forms import FORMS, Form, form_of_traffic
from routellm_core.data.forms.values import GOLD_NAMES, ID_NAMES, PROMPT_NAMES, has_any
from routellm_core.data.joining import JoinReport
from routellm_core.data.sources import Source
from routellm_core.errors import DataError

_LIST = "'routellm data forms' lists what is read"


class Seen(NamedTuple):
    """What is known about a file.

    Attributes:
        source: The file.
        rows: Its first rows, as they stand in it.
        form: The form that they are of; None if of none that is known.
    """

    source: Source
    rows: list[Row]
    form: Form | None

    def fields(self) -> str:
        """The names of the fields, for a message."""
        return shown_names(dict.fromkeys(name for row in self.rows for name in row))


def refusal(place: str, expected: str, seen: Seen, translated: Sequence[Row]) -> DataError:
    """The error for a file that holds something else than what is expected.

    Args:
        place: File and place of the first row.
        expected: What was looked for, with its fields.
        seen: The file.
        translated: Its first rows in the project's own form.
    """
    return DataError(f"{place}: expected {expected}; fields seen: {seen.fields()}; {_next_step(seen, translated)}")


def traffic_only(seen: Seen) -> DataError:
    """The error for traffic in the place of labels."""
    name = seen.form.name if seen.form is not None else ""
    return DataError(
        f"{seen.source.path}: form={name!r} is a form of traffic, without labels; it is for calibrate and route: "
        f"{_command('calibrate', seen)}"
    )


def prompts_at_least(seen: Seen) -> str:
    """What a file whose labels cannot be read is good for; nothing where it has no prompts of its own."""
    if seen.form is None or seen.form.prompts is None:
        return ""
    return f"; its prompts are for calibrate and route: {_command('calibrate', seen)}"


def nameless(seen: Seen) -> DataError:
    """The error for rows about one model whose name stands nowhere."""
    file = seen.source.path
    guess = file.parent.name if file.parent.name and file.parent.name.isprintable() else "MODEL"
    command = f"routellm evaluate --data {shlex.quote(f'{guess}={file}')} --data OTHER=OTHER_FILE"
    return DataError(
        f"{file}: its rows are about one model{_of_form(seen.form)}, but do not say which; fields seen: "
        f"{seen.fields()}; name the model before the file, and give the file of the other model as well: {command}"
    )


def incomplete(
    seen: Sequence[Seen], report: JoinReport, answered: Iterable[str], *, answers: bool = False
) -> DataError:
    """The error for rows about one model each of which none has a partner.

    Args:
        seen: The files.
        report: How the rows were put together.
        answered: Models of which there are answers.
        answers: Whether answers were looked for, and not scores.
    """
    files = " ".join(f"--data {shlex.quote(str(one.source))}" for one in seen)
    evaluate = f"routellm evaluate {files}"
    what = "answers" if answers else "scores"
    names = ", ".join(str(one.source.path) for one in seen)
    fields = "; ".join(dict.fromkeys(one.fields() for one in seen))

    def error(problem: str, step: str) -> DataError:
        return DataError(f"{names}: {problem}; fields seen: {fields}; {step}")

    models = list(report.models)
    if report.without_prompt and not models:
        ids = next((name for one in seen for row in one.rows for name in ID_NAMES if name in row), "id")
        return error(
            f"none of the {report.rows:,} rows has a prompt",
            f"give the file that has the prompts under the same ids as well (fields {ids!r} and 'prompt' or 'turns'): "
            f"{evaluate} --data QUESTIONS_FILE",
        )
    if not models:
        written = list(answered)
        if written and not answers:
            return error("holds answers, but no scores", _label(seen[0], written, files))
        return error(
            f"none of the {report.rows:,} rows has {what}",
            f"give a file with {what} of the same prompts as well: {evaluate} --data MODEL=FILE",
        )
    if len(models) == 1:
        return error(
            f"holds {what} of one model only, {shown_names(models)}",
            f"a router compares two, so give the file of the other model{_of_form(seen[0].form)} as well: {evaluate} "
            "--data OTHER=OTHER_FILE",
        )
    counts = ", ".join(f"{shown_names([name])} {count:,}" for name, count in list(report.models.items())[:5])
    return error(
        f"no prompt has {what} of two models (prompts of each: {counts})",
        "are the files about the same prompts, or do their rows have the same ids (field 'id')?",
    )


def _next_step(seen: Seen, translated: Sequence[Row]) -> str:
    answered = list(dict.fromkeys(m for row in translated if isinstance(a := row.get("answers"), dict) for m in a))
    files = f"--data {shlex.quote(str(seen.source))}"
    if answered:
        return "they hold answers, but no labels yet: " + _label(seen, answered, files)
    traffic = next((form for row in seen.rows if (form := form_of_traffic(row)) is not None), None)
    if traffic is not None:
        return (
            f"this is traffic without labels ({traffic.name}: {traffic.title}), which is for calibrate and route: "
            f"{_command('calibrate', seen)}"
        )
    step = ""
    if seen.rows and has_any(seen.rows[0], PROMPT_NAMES):
        step = (
            f"prompts without labels are for calibrate and route: {_command('calibrate', seen)}; for labels, let both "
            f"models answer them: {_command('label answer', seen)} --model NAME=URL --model NAME=URL --out "
            "answers.jsonl; else "
        )
    return step + _nearest(seen)


def _nearest(seen: Seen) -> str:
    """The form that shares most fields with the rows, and what it lacks."""
    names = {name.lower() for row in seen.rows for name in row}
    labelled = [form for form in FORMS if {"scores", "preferences"}.intersection(form.holds)]
    has = {form.name: names.intersection(map(str.lower, form.fields)) for form in labelled}
    # all of its fields are there, and yet it is not it: then another one is nearer
    near = [form for form in labelled if 0 < len(has[form.name]) < len(form.fields)]
    if not near:
        return f"rename the fields, or translate the rows (in Python with read_rows); {_LIST}"
    best = max(near, key=lambda form: len(has[form.name]))
    lacking = [name for name in best.fields if name.lower() not in has[best.name]]
    return (
        f"the nearest form is {best.name!r} ({best.title}), which also has {shown_names(lacking)}; "
        f"rename the fields, or read the file as it with --from {best.name}; {_LIST}"
    )


def _label(seen: Seen, models: Sequence[str], files: str) -> str:
    if any(has_any(row, GOLD_NAMES) for row in seen.rows):
        return f"label them first: routellm label gold {files} --out outcomes.jsonl"
    pair = [shlex.quote(name) for name in models[:2] if shown_names([name]) == name] + ["STRONG", "WEAK"]
    return (
        f"label them first: routellm label judge {files} --strong {pair[0]} --weak {pair[1]} --judge MODEL "
        "--out battles.jsonl"
    )


def _command(name: str, seen: Seen) -> str:
    return f"routellm {name} --data {shlex.quote(str(seen.source.path))}"


def _of_form(form: Form | None) -> str:
    return "" if form is None else f" (form {form.name!r})"
