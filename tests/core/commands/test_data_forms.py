"""Files of other tools in the commands: named models, --from, what was joined, and the list of forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from routellm_core import ConfigurationError, DataError
from routellm_core.cli import build_app
from routellm_core.data import read_preferences
from routellm_core.data.forms import FORMS
from tests.core.data.foreign_files import BIG, QUESTIONS, SMALL, STAND_INS, put


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def of(data: list[str]) -> list[str]:
    return [part for item in data for part in ("--data", item)]


@pytest.mark.parametrize("name", ["lm_eval", "routerarena", "llmrouterbench", "helm", "mt_bench, single"])
def test_files_of_one_model_each_are_converted_and_what_matched_is_said(tmp_path: Path, name: str) -> None:
    data = put(tmp_path, STAND_INS[name])
    out = tmp_path / "out.jsonl"
    result = run("data", "convert", *of(data), "--out", out)
    assert "by prompt: 3 of 3 prompts matched" in result.stderr or "by id: 3 of 3 prompts matched" in result.stderr
    assert list(read_preferences(out)) == list(read_preferences(data))
    report = json.loads(run("data", "convert", *of(data), "--out", out, "--json").stdout)
    assert report["joined"]["matched"] == 3
    assert report["joined"]["models"] == {BIG: 3, SMALL: 3}


def test_outcomes_of_named_files_train_evaluate_and_label(tmp_path: Path) -> None:
    data = put(tmp_path, STAND_INS["lm_eval"])
    pair = ("--strong", BIG, "--weak", SMALL)
    found = run("train", "knn", *of(data), *pair, "--out", tmp_path / "router", "--held-out", "0", "--json")
    assert json.loads(found.stdout)["rows"]["train"] == 3
    assert "joined 6 rows by prompt" in found.stderr
    result = run("evaluate", *of(data), *pair, "--router", "random", "--out", tmp_path / "e", "--draws", 10, "--json")
    assert [row["count"] for row in json.loads(result.stdout)] == [3]
    answers = put(tmp_path, STAND_INS["batch, OpenAI"])
    with pytest.raises(DataError, match="without a usable right answer"):
        run("label", "gold", *of(answers), "--out", tmp_path / "gold.jsonl")
    dry = run(
        "label", "judge", *of(answers), *pair, "--judge", "j", "--dry-run", "--out", tmp_path / "j.jsonl", "--json"
    )
    assert json.loads(dry.stdout)["judge"]["calls"] == 6


def test_a_form_can_be_named_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    (path,) = put(tmp_path, STAND_INS["routerbench"])
    out = tmp_path / "out.jsonl"
    run("data", "convert", "--data", path, "--from", "routerbench", "--out", out)
    assert [row.prompt for row in read_preferences(out)] == list(QUESTIONS)
    lines = run("route", "--data", path, "--from", "routerbench", "--router", "random", "--json").stdout.splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == list(QUESTIONS)
    run("calibrate", "--data", path, "--from", "routerbench", "--router", "random", "--out", tmp_path / "c.json")
    for command in (("data", "convert"), ("route",), ("calibrate",)):
        extra = ("--out", out) if command != ("route",) else ()
        with pytest.raises(ConfigurationError, match="form='bench': expected one of arena, "):
            run(*command, "--data", path, "--from", "bench", *extra)


def test_route_leaves_malformed_rows_out_and_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "one"}\nnot JSON\n{"prompt": "two"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: "):
        run("route", "--data", path, "--router", "random")
    result = run("route", "--data", path, "--router", "random", "--skip-bad", "--json")
    assert len(result.stdout.splitlines()) == 2
    assert "left out 1 malformed rows" in result.stderr
    assert "a.jsonl, line 2: " in result.stderr


def test_the_forms_are_listed_with_what_they_hold_and_are_for() -> None:
    listed = json.loads(run("data", "forms", "--json").stdout)
    assert [form["name"] for form in listed] == [form.name for form in FORMS]
    assert all(form.keys() == {"name", "title", "holds", "used_for", "needs"} for form in listed)
    table = run("data", "forms").stdout
    assert all(form.name in table for form in FORMS)
