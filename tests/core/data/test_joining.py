"""Files of one model each are joined by prompt or id, what does not match is counted, and refusals lead on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from routellm_core import ConfigurationError, DataError
from routellm_core.data import SkippedRows, prompts_of_record, read_answers, read_preferences, read_prompts
from routellm_core.data.joining import JoinReport
from routellm_core.data.reading import joined_together
from routellm_core.data.sources import Source, sources_of
from routellm_core.evaluation import load_outcomes

QUESTIONS = ("What is 1+1?", "Who are you?", "Explain gravity.")


def put(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(path: Path, scores: Iterable[float], *, prompts: Iterable[str] = QUESTIONS, **more: Any) -> Path:
    rows = zip(prompts, scores, strict=False)
    return put(path, ({"prompt": prompt, "score": score, **more} for prompt, score in rows))


def scores_of(data: Any, report: JoinReport | None = None) -> dict[str, dict[str, float]]:
    return {row.prompt: row.scores for row in read_preferences(data, joined=report)}  # type: ignore[union-attr]


def test_prompts_that_differ_in_spaces_are_the_same_and_others_are_counted(tmp_path: Path) -> None:
    big = scored(tmp_path / "a.jsonl", (1, 0, 1))
    small = scored(tmp_path / "b.jsonl", (0, 1, 1), prompts=("What is  1+1? ", "Who are you?", "Something else"))
    report = JoinReport()
    data = {"big": big, "small": small}
    assert scores_of(data, report) == {
        "What is 1+1?": {"big": 1, "small": 0},
        "Who are you?": {"big": 0, "small": 1},
    }
    assert report.to_dict() == {
        "by": "prompt",
        "rows": 6,
        "prompts": 4,
        "matched": 2,
        "dropped": 2,
        "without_prompt": 0,
        "models": {"big": 3, "small": 3},
    }
    assert report.sentence() == (
        "joined 6 rows by prompt: 2 of 4 prompts matched, 2 without an answer or score of a second model dropped"
    )
    assert load_outcomes(data).prompts == ("What is 1+1?", "Who are you?")


def test_ids_join_where_prompts_are_missing_be_they_texts_integers_or_floats(tmp_path: Path) -> None:
    big = put(tmp_path / "a.jsonl", ({"id": i, "prompt": q, "score": 1} for i, q in enumerate(QUESTIONS)))
    for ids in ((0, 1, 2), ("0", "1", "2"), (0.0, 1.0, 2.0)):
        small = put(tmp_path / "b.jsonl", ({"id": i, "score": 0} for i in ids))
        report = JoinReport()
        assert scores_of({"big": big, "small": small}, report) == {q: {"big": 1, "small": 0} for q in QUESTIONS}
        assert report.by == "id"
    lost = put(tmp_path / "b.jsonl", ({"id": i, "score": 0} for i in (0, 7)))
    report = JoinReport()
    assert len(scores_of({"big": big, "small": lost}, report)) == 1
    assert (report.matched, report.dropped, report.without_prompt) == (1, 2, 1)
    assert "1 rows without a prompt dropped" in report.sentence()


def test_ids_join_prompts_that_differ_unless_they_are_row_numbers(tmp_path: Path) -> None:
    def files(ids: Iterable[Any]) -> dict[str, Path]:
        named = list(zip(ids, QUESTIONS, strict=True))
        return {
            "big": put(tmp_path / "a.jsonl", ({"id": i, "prompt": q, "score": 1} for i, q in named)),
            "small": put(tmp_path / "b.jsonl", ({"id": i, "prompt": f"Q: {q}", "score": 0} for i, q in named)),
        }

    report = JoinReport()
    assert scores_of(files(("q1", "q2", "q3")), report) == {q: {"big": 1, "small": 0} for q in QUESTIONS}
    assert report.by == "id"
    with pytest.raises(DataError, match=r"no prompt has scores of two models \(prompts of each: big 3, small 3\)"):
        scores_of(files((1, 2, 3)))


def test_several_scores_of_a_model_count_as_their_mean(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "one",
            "model": model,
            "score": score,
            "cost": cost,
            "input_tokens": 10,
            "response": f"{model} {cost}",
        }
        for model, score, cost in (("a", 1, 0.1), ("a", 0, 0.3), ("b", 1, 0.2))
    ]
    path = put(tmp_path / "a.jsonl", rows)
    (row,) = read_preferences(path)
    assert row.scores == {"a": 0.5, "b": 1.0}  # type: ignore[union-attr]
    assert row.costs == {"a": pytest.approx(0.2), "b": 0.2}
    assert row.tokens["a"].input == 10
    (answered,) = read_answers(path)
    assert answered.answers == {"a": "a 0.1", "b": "b 0.2"}


def test_own_rows_of_one_model_each_are_joined_and_whole_ones_follow_one_another(tmp_path: Path) -> None:
    one = [put(tmp_path / f"{m}.jsonl", ({"prompt": q, "scores": {m: 1}} for q in QUESTIONS)) for m in "ab"]
    whole = put(tmp_path / "whole.jsonl", [{"prompt": "whole", "scores": {"a": 1, "b": 0}}])
    other = put(tmp_path / "other.jsonl", [{"prompt": "other", "scores": {"a": 1, "b": 0}}])
    report = JoinReport()
    found = [row.prompt for row in read_preferences([one[0], whole, one[1], other], joined=report)]
    assert found == ["whole", "other", *QUESTIONS]
    assert report.matched == 3
    groups = joined_together([one[0], whole, one[1], other])
    assert [[source.path.stem for source in group] for group in groups] == [["a", "b"], ["whole"], ["other"]]


def test_a_model_before_the_file_and_files_whose_names_hold_an_equals_sign(tmp_path: Path) -> None:
    odd = scored(tmp_path / "date=1" / "a=b.jsonl", (1, 0, 1))
    assert sources_of(str(odd)) == [Source(odd)]
    assert sources_of([f"acme/big={odd}", odd, str(odd)]) == [Source(odd, "acme/big"), Source(odd)]
    assert sources_of({"big": odd}) == [Source(odd, "big")]
    for wrong in ("=x.jsonl", "big="):
        with pytest.raises(ConfigurationError, match="expected FILE or MODEL=FILE"):
            sources_of(wrong)
    with pytest.raises(ConfigurationError, match="at least one file"):
        sources_of([])
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_preferences({"big": tmp_path / "none.jsonl"})


def test_what_is_missing_is_said_with_the_fields_and_the_next_step(tmp_path: Path) -> None:
    one = scored(tmp_path / "run" / "a.jsonl", (1, 0, 1))
    wide = put(tmp_path / "wide.jsonl", ({"prompt": q, "big": 1, "small": 0} for q in QUESTIONS))
    single = put(tmp_path / "single.jsonl", ({"prompt": q, "big": 1} for q in QUESTIONS))
    ids = put(tmp_path / "ids.jsonl", ({"id": f"q{i}", "model": "big", "judgment": "x", "score": 1} for i in range(3)))
    answers = put(
        tmp_path / "answers.jsonl", ({"prompt": q, "big_response": "x", "small_response": "y"} for q in QUESTIONS)
    )
    right = put(tmp_path / "right.jsonl", ({"question": q, "answer": "x"} for q in QUESTIONS))
    traffic = put(tmp_path / "traffic.jsonl", [{"request_id": "1", "spend": 0.1, "messages": []}])
    cases: list[tuple[Any, str]] = [
        (
            one,
            f"do not say which; fields seen: prompt, score; name .* --data run={one} --data OTHER=OTHER_FILE",
        ),
        ({"big": one}, f"scores of one model only, big; fields seen: prompt, score; .* --data big={one} --data OTHER="),
        (single, f"scores of one model only, big; fields seen: prompt, big; .*--data {single} --data OTHER="),
        (
            ids,
            f"none of the 3 rows has a prompt; fields seen: id, .*--data {ids} --data QUESTIONS_FILE",
        ),
        (
            {"x": wide},
            "names its models itself; give the file without NAME= .*fields seen: prompt, big, small",
        ),
        (answers, f"answers, but no labels yet: .*label judge --data {answers} --strong big --weak small"),
        (right, f"fields seen: question, answer; .*routellm label answer --data {right} --model"),
        (traffic, f"fields seen: request_id, spend, messages; .*litellm.*routellm calibrate --data {traffic}"),
    ]
    for data, message in cases:
        with pytest.raises(DataError, match=message):
            list(read_preferences(data))


def test_a_row_without_a_score_of_the_pair_is_left_out_and_the_first_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": q, "scores": {"big": 1, "small": 0}} for q in QUESTIONS]
    path = put(tmp_path / "a.jsonl", [*rows[:2], {"prompt": "ragged", "scores": {"big": 1, "small": None}}, rows[2]])
    for pair in ({}, {"strong": "big", "weak": "small"}):
        skipped = SkippedRows()
        found = load_outcomes(path, **pair, skip_bad=skipped)  # type: ignore[arg-type]
        assert found.prompts == load_outcomes(path, **pair).prompts == QUESTIONS  # type: ignore[arg-type]
        assert (found.incomplete, found.first_incomplete) == (1, "line 3")
        assert "a.jsonl, line 3: no score of small" in skipped.first[0]


def test_battles_of_other_models_and_prompts_that_only_some_models_have_are_no_ragged_rows(tmp_path: Path) -> None:
    battles = [{"prompt": q, "model_a": "big", "model_b": "small", "winner": "tie"} for q in QUESTIONS]
    path = put(tmp_path / "a.jsonl", [*battles, {**battles[0], "prompt": "other", "model_a": "third"}])
    assert load_outcomes(path, strong="big", weak="small").prompts == QUESTIONS
    long = [{"prompt": q, "model": m, "score": 1} for q in QUESTIONS for m in ("big", "small")]
    sparse = [{"prompt": "sparse", "model": m, "score": 1} for m in ("big", "third")]
    report = JoinReport()
    path = put(tmp_path / "b.jsonl", [*long, *sparse])
    assert load_outcomes(path, strong="big", weak="small", joined=report).prompts == QUESTIONS
    assert (report.prompts, report.matched, report.dropped) == (4, 3, 1)


def test_answers_are_joined_to_the_prompts_and_right_answers_of_another_file(tmp_path: Path) -> None:
    prompts = put(tmp_path / "p.jsonl", ({"prompt": q, "gold": "x"} for q in QUESTIONS))
    big = put(tmp_path / "a.jsonl", ({"prompt": q, "model": "big", "response": "x"} for q in QUESTIONS[:2]))
    small = put(tmp_path / "b.jsonl", ({"prompt": q, "response": "y", "score": 1} for q in QUESTIONS[1:]))
    report = JoinReport()
    found = list(read_answers([prompts, big, f"small={small}"], joined=report))
    assert [(row.prompt, row.gold) for row in found] == [(q, "x") for q in QUESTIONS]
    assert [row.answers for row in found] == [{"big": "x"}, {"big": "x", "small": "y"}, {"small": "y"}]
    assert (report.matched, report.models) == (3, {"big": 2, "small": 2})
    # prompts whose answers are to be written stay, in one file or in several
    assert [row.answers for row in read_answers([prompts, put(tmp_path / "q.jsonl", [{"prompt": "more"}])])] == [{}] * 4
    requests = put(
        tmp_path / "r.jsonl", [{"custom_id": "1", "params": {"messages": [{"role": "user", "content": "hi"}]}}]
    )
    assert [(row.prompt, row.answers) for row in read_answers(requests)] == [("hi", {})]


def test_braces_in_names_are_no_placeholders(tmp_path: Path) -> None:
    path = scored(tmp_path / "{0}.jsonl", (1, 0, 1), **{"{x}": 1})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"\{0\}\.jsonl: holds scores of one model only, big; fields seen: .*\{x\}"):
        list(read_preferences({"big": path}))


def test_a_record_of_labels_has_its_prompt_alone_as_in_a_file(tmp_path: Path) -> None:
    row = {"model_a": "a", "model_b": "b", "prompt": '["first", "second"]', "winner_model_a": 1}
    assert list(prompts_of_record(row)) == list(read_prompts(put(tmp_path / "a.jsonl", [row]))) == ["first"]
    assert list(prompts_of_record({**row, "prompt": "no list"})) == []
