"""Files of other tools are read as they are: of every form a small one, in every container, through every reader."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routellm_core.data import forms, read_answers, read_preferences, read_prompts
from routellm_core.data.convert import scores_of
from routellm_core.data.joining import JoinReport
from routellm_core.data.reading import joined_together
from routellm_core.data.records import Record
from routellm_core.evaluation import load_outcomes
from tests.core.data.foreign_files import BIG, QUESTIONS, SMALL, STAND_INS, StandIn, put, write_json
from tests.support.shared import SHARED

NAMES = list(STAND_INS)
LABELS = [name for name in NAMES if STAND_INS[name].signs is not None]
TABLES = [name for name in NAMES if STAND_INS[name].tabular]


def signs(records: list[Record], strong: str, weak: str) -> dict[str, int]:
    out = {}
    for record in records:
        scores = scores_of(record)
        gap = scores[strong] - scores[weak]
        out[record.prompt] = (gap > 0) - (gap < 0)
    return out


def write_csv(path: Path, rows: Any) -> Path:
    path = path.with_suffix(".csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Any) -> Path:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def write_gzip(path: Path, rows: Any) -> Path:
    plain = write_json(path, rows)
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    return packed


def write_array(path: Path, rows: Any) -> Path:
    return write_json(path.with_suffix(".json"), rows)


def nameless(writer: Callable[[Path, Any], Path]) -> Callable[[Path, Any], Path]:
    """Under a name that says nothing: a form is recognised by its content."""

    def written(path: Path, rows: Any) -> Path:
        made = writer(path, rows)
        return made.rename(made.with_name(f"{made.name.replace('.', '_')}_download"))

    return written


def check(stand_in: StandIn, data: list[str]) -> None:
    """Every reader says of the files what is right of them."""
    if stand_in.signs is not None:
        report = JoinReport()
        records = list(read_preferences(data, joined=report))
        assert signs(records, stand_in.strong, stand_in.weak) == stand_in.signs
        assert report.joined == forms.find_form(stand_in.form).joins
        if report.joined:
            assert (report.matched, report.dropped, report.without_prompt) == (len(QUESTIONS), 0, 0)
        assert all(bool(record.costs) == stand_in.costs for record in records)
        assert all(bool(record.tokens) == stand_in.tokens for record in records)
        found = load_outcomes(data, strong=stand_in.strong, weak=stand_in.weak)
        gaps = found.strong_scores - found.weak_scores
        assert dict(zip(found.prompts, ((gaps > 0).astype(int) - (gaps < 0)).tolist(), strict=True)) == stand_in.signs
        assert len(joined_together(data)) == 1
    if stand_in.answers:
        answered = list(read_answers(data))
        assert [row.prompt for row in answered] == list(QUESTIONS)
        assert all(row.answers.keys() == {BIG, SMALL} for row in answered)
        assert all(bool(row.tokens) == stand_in.tokens for row in answered)
    expected = stand_in.prompts or tuple(stand_in.signs or ())
    with_prompts = data[-1:] if "question" in data[-1] or "instances" in data[-1] else data[:1]
    assert tuple(read_prompts(with_prompts[0].rpartition("=")[2])) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_tool_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    stand_in = STAND_INS[name]
    data = put(tmp_path, stand_in)
    check(stand_in, data)
    rows = next(iter(stand_in.files.values()))
    if isinstance(rows, list):
        found = forms.form_of_labels(rows[:16]) or forms.form_of_traffic(rows[0])
        # spans of the Vercel SDK have the fields of any other span
        assert found is forms.find_form("opentelemetry" if stand_in.form == "vercel" else stand_in.form)


@pytest.mark.parametrize("writer", [nameless(write_json), write_gzip, write_array], ids=["nameless", "gzip", "array"])
@pytest.mark.parametrize("name", [n for n in NAMES if all(isinstance(r, list) for r in STAND_INS[n].files.values())])
def test_a_form_is_found_in_any_container(tmp_path: Path, name: str, writer: Any) -> None:
    check(STAND_INS[name], put(tmp_path, STAND_INS[name], writer))


@pytest.mark.parametrize(
    "writer", [write_csv, nameless(write_csv), write_parquet], ids=["csv", "nameless csv", "parquet"]
)
@pytest.mark.parametrize("name", TABLES)
def test_a_form_is_found_in_a_table(tmp_path: Path, name: str, writer: Any) -> None:
    check(STAND_INS[name], put(tmp_path, STAND_INS[name], writer))


@pytest.mark.parametrize("name", NAMES)
def test_a_form_can_be_forced(tmp_path: Path, name: str) -> None:
    stand_in = STAND_INS[name]
    data = put(tmp_path, stand_in)
    if stand_in.signs is not None and len(stand_in.files) == 1:
        assert list(read_preferences(data, form=stand_in.form)) == list(read_preferences(data))
    first = data[0].rpartition("=")[2]
    assert set(read_prompts(first, form=stand_in.form)) == set(read_prompts(first))


def test_every_form_has_a_stand_in() -> None:
    assert {stand_in.form for stand_in in STAND_INS.values()} == {form.name for form in forms.FORMS}


CASES = SHARED / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the files as people have them are not part of the project")
@pytest.mark.parametrize("name", json.loads((CASES / "expected.json").read_text()) if CASES.is_dir() else ["none"])
def test_files_as_people_have_them(name: str) -> None:
    case = json.loads((CASES / "expected.json").read_text())[name]
    files = [CASES / file for file in case["files"]]
    data = [str(file) for file in files]
    if name == "lm_eval":
        data = [f"{model}={file}" for model, file in zip((case["strong"], case["weak"]), files, strict=True)]
    if case["kind"] == "labels":
        records = list(read_preferences(data))
        models = {model for record in records for model in scores_of(record)}
        strong = next(iter(models - {case["weak"]})) if case.get("any_strong") else case["strong"]
        expected = dict(case["rows"])
        assert signs(records, strong, case["weak"]) == expected
        assert load_outcomes(data, strong=strong, weak=case["weak"]).prompts == tuple(expected)
        assert list(read_prompts(files[0])) == list(expected)
    elif case["kind"] == "prompts":
        turns = [turn for row in case["rows"] for turn in ([row] if isinstance(row, str) else row)]
        assert list(read_prompts(files[0])) == turns
    else:
        with pytest.raises(Exception, match=f"fields seen: .*--data .*{files[0].name}.* --data ") as caught:
            list(read_preferences(data))
        assert type(caught.value).__name__ == "DataError"


def table_of_forms() -> str:
    lines = ["| form | what it is | it can hold | used for |", "|---|---|---|---|"]
    for form in forms.FORMS:
        what = form.title.replace("|", "\\|")
        what += f"; needs {form.needs}" if form.needs else ""
        lines.append(f"| `{form.name}` | {what} | {', '.join(form.holds)} | {', '.join(form.uses)} |")
    return "\n".join(lines)


def test_the_docs_list_every_form_and_what_it_is_for() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- forms: a test compares this table with the code -->\n")
    assert rest.partition("\n<!-- /forms -->")[0] == table_of_forms()


def test_what_the_table_says_a_form_holds_is_what_its_stand_ins_hold() -> None:
    for form in forms.FORMS:
        of_form = [stand_in for stand_in in STAND_INS.values() if stand_in.form == form.name]
        assert ("costs" in form.holds) >= any(stand_in.costs for stand_in in of_form)
        assert ("answers" in form.holds) >= any(stand_in.answers for stand_in in of_form)
        labelled = not {"scores", "preferences"}.isdisjoint(form.holds)
        assert labelled == any(stand_in.signs is not None for stand_in in of_form), form.name
        assert ("train" in form.uses) == labelled
