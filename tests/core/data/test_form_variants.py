"""What tools write beside their usual rows: failed calls, missing verdicts, fields of other versions, other cells."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from routellm_core.data import read_answers, read_preferences, read_prompts
from routellm_core.data.convert import scores_of
from routellm_core.data.joining import JoinReport
from routellm_core.errors import DataError

Rows = list[dict[str, Any]]
Q = ("What is 2 + 2?", "Was heißt „größer“?", "Name a prime\nbelow 10")


def lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scores(*data: Any, report: JoinReport | None = None) -> list[tuple[str, dict[str, float]]]:
    return [(record.prompt, scores_of(record)) for record in read_preferences([str(d) for d in data], joined=report)]


def answers(*data: Any) -> list[tuple[str, dict[str, str]]]:
    return [(row.prompt, row.answers) for row in read_answers([str(d) for d in data])]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


# Rows of which the judge gave no verdict.


def alpaca(i: int, preference: Any) -> dict[str, Any]:
    sides = {"output_1": "x", "generator_1": "a", "output_2": "y", "generator_2": "b"}
    return {"instruction": Q[i], **sides, "annotator": "judge", "preference": preference}


def arena_hard(i: int, *verdicts: str | None) -> dict[str, Any]:
    asked = f"<|User Prompt|>\n{Q[i]}\n\n<|The Start of Assistant A's Answer|>\nx"
    games = [{"user_prompt": asked, "judgment": "j", "score": verdict} for verdict in verdicts]
    return {"question_id": f"q{i}", "model": "a", "baseline": "b", "judge": "j", "games": games}


def mt_pair(i: int, first: str, second: str) -> dict[str, Any]:
    asked = f"[User Question]\n{Q[i]}\n\n[The Start of Assistant A's Answer]\nx"
    sides = {"model_1": "a", "model_2": "b", "g1_winner": first, "g2_winner": second}
    return {"question_id": i, **sides, "judge": ["j", "pair-v2"], "g1_user_prompt": asked, "turn": 1}


def mt_single(i: int, model: str, score: float) -> dict[str, Any]:
    asked = f"[Question]\n{Q[i]}\n\n[The Start of Assistant's Answer]\nx"
    return {
        "question_id": i,
        "model": model,
        "judge": ["j", "single-v1"],
        "user_prompt": asked,
        "judgment": "",
        "score": score,
    }


@pytest.mark.parametrize(
    ("rows", "first", "last"),
    [
        ([alpaca(0, 1.2), alpaca(1, None), alpaca(2, 2.0)], (1, 0), (0, 1)),
        ([arena_hard(0, "B>A", "A>B"), arena_hard(1, None, None), arena_hard(2, None, "B>A")], (1, 0), (0, 1)),
        ([mt_pair(0, *["model_1"] * 2), mt_pair(1, "error", "model_2"), mt_pair(2, *["model_2"] * 2)], (1, 0), (0, 1)),
        ([mt_single(i, m, s) for i in range(3) for m, s in (("a", 5 - i), ("b", -1 if i == 1 else 4))], (5, 4), (3, 4)),
    ],
    ids=["alpaca_eval", "arena_hard", "mt_bench pairs", "mt_bench"],
)  # fmt: skip
def test_a_row_without_a_verdict_is_left_out_and_counted(
    tmp_path: Path, rows: Rows, first: tuple[float, float], last: tuple[float, float]
) -> None:
    report = JoinReport()
    found = scores(lines(tmp_path / "judged.jsonl", rows), report=report)
    assert found == [(Q[i], dict(zip("ab", values, strict=True))) for i, values in ((0, first), (2, last))]
    assert report.unlabelled + report.dropped == 1
    assert list(read_prompts(tmp_path / "judged.jsonl")) == list(Q)


def test_a_file_without_any_verdict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fields seen: .*preference.*routellm label judge"):
        scores(lines(tmp_path / "annotations.jsonl", [alpaca(0, None), alpaca(1, None)]))


def test_answers_of_annotations_can_be_labelled_anew(tmp_path: Path) -> None:
    path = lines(tmp_path / "annotations.jsonl", [alpaca(0, None), alpaca(1, 1.0)])
    assert answers(path) == [(q, {"a": "x", "b": "y"}) for q in Q[:2]]


def test_a_table_may_have_rows_without_any_score(tmp_path: Path) -> None:
    report = JoinReport()
    path = tmp_path / "wide.csv"
    path.write_text("prompt,big,small\nq0,1,0\nq1,,\nq2,0,1\n")
    assert scores(path, report=report) == [("q0", {"big": 1, "small": 0}), ("q2", {"big": 0, "small": 1})]
    assert report.unlabelled == 1


@pytest.mark.parametrize("tie", ["tie", "tie (bothbad)", "both_bad", "tie (inconsistent)", "Tie"])
def test_every_name_of_a_tie_is_a_tie(tmp_path: Path, tie: str) -> None:
    battle = {"prompt": "q", "model_a": "a", "model_b": "b", "winner": tie}
    assert scores(lines(tmp_path / "b.jsonl", [battle])) == [("q", {"a": 0.5, "b": 0.5})]


def test_a_winner_may_be_the_name_of_its_model(tmp_path: Path) -> None:
    rows = [{"prompt": name, "model_a": "big", "model_b": "small", "winner": name} for name in ("big", "small")]
    found = scores(lines(tmp_path / "b.jsonl", rows))
    assert found == [("big", {"big": 1, "small": 0}), ("small", {"big": 0, "small": 1})]


# Ratings are no models.


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "x", "helpfulness": 4, "correctness": 3, "coherence": 4, "verbosity": 1},
        {"prompt": "q", "response_1": "x", "response_2": "y", "preference_strength": 2, "preference_statement": "s"},
        {"context": [user("q")], "response1": "x", "response2": "y", "overall_preference": -1},
        {"prompt": "q", "completion": "x", "honesty": 4, "safety": 3},
    ],
    ids=["HelpSteer2", "HelpSteer2 preference", "HelpSteer3", "ratings"],
)
def test_ratings_of_unnamed_models_are_refused_and_their_prompts_read(tmp_path: Path, row: dict[str, Any]) -> None:
    path = lines(tmp_path / "rated.jsonl", [row] * 3)
    with pytest.raises(DataError, match=r"fields seen: .*(response|completion)"):
        scores(path)
    assert list(read_prompts(path)) == ["q"] * 3


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [user("q")], "rejected": [user("q")], "score_chosen": 8.0, "score_rejected": 4.0},
        {"chosen": "\n\nHuman: q\n\nAssistant: x", "rejected": "\n\nHuman: q\n\nAssistant: y"},
        {"system": "Be brief.", "question": "q", "chosen": "x", "rejected": "y"},
    ],
)
def test_pairs_without_models_have_prompts_only(tmp_path: Path, row: dict[str, Any]) -> None:
    path = lines(tmp_path / "pairs.jsonl", [row])
    assert list(read_prompts(path)) == ["q"]
    with pytest.raises(DataError, match=r"chosen_model.*fields seen.*routellm calibrate --data"):
        scores(path)


# Cells as pandas writes them.


def cells(path: Path, rows: Rows, written: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: written(v) if isinstance(v, dict | list) else v for k, v in row.items()} for row in rows)
    return path


def array(value: Any) -> str:
    return "[" + "\n ".join(map(repr, value)) + "]" if isinstance(value, list) else repr(value)


@pytest.mark.parametrize("written", [json.dumps, repr, array], ids=["JSON", "Python", "NumPy"])
def test_cells_with_objects_are_read_however_they_were_written(tmp_path: Path, written: Any) -> None:
    chats = [[user(q), {"role": "assistant", "content": "it's"}, user("so?")] for q in Q]
    path = cells(tmp_path / "chats.csv", [{"model": "m", "conversation": chat, "turn": 2} for chat in chats], written)
    assert list(read_prompts(path)) == [text for q in Q for text in (q, "so?")]
    battles = [
        {"model_a": "a", "model_b": "b", "winner": "tie", "conversation_a": chat, "conversation_b": chat}
        for chat in chats
    ]
    assert scores(cells(tmp_path / "battles.csv", battles, written)) == [(q, {"a": 0.5, "b": 0.5}) for q in Q]
    rows = [{"prompt": q, "scores": {"a": 1, "b": 0}} for q in Q]
    assert scores(cells(tmp_path / "scores.csv", rows, written)) == [(q, {"a": 1, "b": 0}) for q in Q]


@pytest.mark.parametrize(
    "table",
    [
        {"prompt": dict(enumerate(Q)), "big": {0: 1, 1: 0, 2: 1}, "small": {0: 0, 1: 0, 2: 1}},
        {"prompt": Q, "big": [1, 0, 1], "small": [0, 0, 1]},
        {f"q{i}": {"prompt": q, "big": [1, 0, 1][i], "small": [0, 0, 1][i]} for i, q in enumerate(Q)},
    ],
    ids=["objects", "lists", "by id"],
)
def test_a_table_in_one_object_is_read(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    assert scores(path) == [(q, {"big": [1, 0, 1][i], "small": [0, 0, 1][i]}) for i, q in enumerate(Q)]


def test_numbers_in_cells_have_units(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("Unnamed: 0,prompt,big,big_cost,small,small_cost\n0,q,85%,$0.02,0.5,0.001 USD\n")
    (record,) = read_preferences(str(path))
    assert scores_of(record) == {"big": 0.85, "small": 0.5}
    assert record.costs == {"big": 0.02, "small": 0.001}
    path.write_text("prompt;big;small\nq;0,5;1\n")
    with pytest.raises(DataError, match="write decimals with a point"):
        scores(path)


def test_a_prompt_may_be_messages(tmp_path: Path) -> None:
    rows: Rows = [{"prompt": [{"role": "system", "content": "s"}, user("q")], "scores": {"a": 1, "b": 0}}]
    assert scores(lines(tmp_path / "a.jsonl", rows)) == [("q", {"a": 1, "b": 0})]
    rows = [{"id": "x1", "turns": [{"content": "q"}]}, {"id": "x1", "scores": {"a": 1, "b": 0}}]
    assert scores(lines(tmp_path / "q.jsonl", rows[:1]), lines(tmp_path / "s.jsonl", rows[1:])) == [
        ("q", {"a": 1, "b": 0})
    ]


# Harnesses.


def sample(i: int, **fields: Any) -> dict[str, Any]:
    return {"doc_id": i, "doc": {"question": Q[i]}, "target": "x", "doc_hash": f"h{i}", "resps": [["all of it"]],
            "filtered_resps": ["it"], **fields}  # fmt: skip


def test_of_several_filters_both_models_are_judged_by_the_same(tmp_path: Path) -> None:
    strict = [sample(i, filter="strict-match", metrics=["exact_match"], exact_match=0.0) for i in range(3)]
    loose = [sample(i, filter="flexible-extract", metrics=["exact_match"], exact_match=1.0) for i in range(3)]
    a, b = lines(tmp_path / "a.jsonl", strict + loose), lines(tmp_path / "b.jsonl", loose + strict)
    assert scores(f"a={a}", f"b={b}") == [(q, {"a": 0, "b": 0}) for q in Q]
    assert answers(f"a={a}", f"b={b}") == [(q, {"a": "all of it", "b": "all of it"}) for q in Q]


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        ({"metrics": ["perplexity", "acc"], "perplexity": -3.0, "acc": 1.0}, 1.0),
        ({"metrics": ["bleu_max", "bleu_acc", "bleu_diff"], "bleu_max": 12.0, "bleu_acc": 1, "bleu_diff": -2.0}, 1.0),
        ({"inst_level_strict_acc": [True], "prompt_level_loose_acc": True, "prompt_level_strict_acc": False}, 0.0),
        ({"acc": 0.0, "acc_norm": 1.0}, 0.0),
        ({"pass@10": 1.0, "pass@1": 0.0}, 0.0),
        ({"metrics": ["rouge_l"], "rouge_l": 0.3}, 0.3),
    ],
)
def test_the_metric_of_a_sample_says_whether_it_is_right(tmp_path: Path, fields: dict[str, Any], score: float) -> None:
    path = lines(tmp_path / "a.jsonl", [sample(0, **fields)])
    assert scores(f"a={path}", f"b={path}") == [(Q[0], {"a": score, "b": score})]


@pytest.mark.parametrize("metric", ["word_perplexity", "bits_per_byte", "brier_score", "wer"])
def test_a_metric_that_is_better_when_lower_is_no_score(tmp_path: Path, metric: str) -> None:
    path = lines(tmp_path / "a.jsonl", [sample(0, metrics=[metric], **{metric: 0.5})])
    with pytest.raises(DataError, match="has no metric"):
        scores(f"a={path}", f"b={path}")


def test_a_question_about_a_passage_is_asked_with_it(tmp_path: Path) -> None:
    rows = [sample(i, doc={"question": "Is it?", "passage": f"P{i}."}, acc=float(i)) for i in range(2)]
    path = lines(tmp_path / "a.jsonl", rows)
    assert scores(f"a={path}", f"b={path}") == [(f"P{i}.\n\nIs it?", {"a": i, "b": i}) for i in range(2)]


def result(i: int, provider: str, score: float, **fields: Any) -> dict[str, Any]:
    return {"provider": {"id": provider}, "prompt": {"raw": Q[i]}, "vars": {"q": Q[i]}, "score": score,
            "success": score == 1, "response": {"output": "x"}, **fields}  # fmt: skip


def test_a_failed_call_of_promptfoo_is_no_wrong_answer(tmp_path: Path) -> None:
    failed: dict[str, Any] = {"failureReason": 2, "error": "API error: 429", "response": {"error": "API error: 429"}}
    rows = [result(0, "a", 1), result(0, "b", 0, failureReason=1, error="Expected x"),
            result(1, "a", 1), result(1, "b", 0, **failed)]  # fmt: skip
    report = JoinReport()
    assert scores(lines(tmp_path / "r.jsonl", rows), report=report) == [(Q[0], {"a": 1, "b": 0})]
    assert report.dropped == 1


def test_tests_of_promptfoo_are_joined_though_each_provider_has_its_prompt(tmp_path: Path) -> None:
    rows = [result(i, p, s, prompt={"raw": f"{p}: {Q[i]}"}) for i in range(2) for p, s in (("a", 1), ("b", i))]
    assert scores(lines(tmp_path / "r.jsonl", rows)) == [(f"a: {Q[i]}", {"a": 1, "b": i}) for i in range(2)]


def test_output_items_of_the_evals_api_are_read(tmp_path: Path) -> None:
    def item(i: int, model: str, score: float) -> dict[str, Any]:
        taken = {
            "input": [user(Q[i])],
            "output": [{"role": "assistant", "content": "x"}],
            "model": model,
            "error": None,
        }
        grades = [{"name": "check", "passed": score > 0, "score": score}]
        return {"object": "eval.run.output_item", "id": f"{model}{i}", "sample": taken, "results": grades}

    rows = [item(i, m, s) for i in range(3) for m, s in (("a", 1.0), ("b", float(i > 1)))]
    path = lines(tmp_path / "items.jsonl", rows)
    assert scores(path) == [(q, {"a": 1, "b": i > 1}) for i, q in enumerate(Q)]
    assert answers(path) == [(q, {"a": "x", "b": "x"}) for q in Q]


def test_a_run_of_inspect_without_scorers_has_answers(tmp_path: Path) -> None:
    def log(model: str) -> dict[str, Any]:
        samples = [
            {"id": i, "epoch": 1, "input": q, "target": "x", "output": {"completion": model}} for i, q in enumerate(Q)
        ]
        return {"version": 2, "status": "success", "eval": {"model": model}, "samples": samples}

    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_text(json.dumps(log(path.stem)))
    assert answers(*paths) == [(q, {"a": "a", "b": "b"}) for q in Q]


@pytest.mark.parametrize(
    "asked",
    [
        [{"instance_id": f"id{i}", "request": {"prompt": q, "model": "m"}} for i, q in enumerate(Q)],
        [{"id": f"id{i}", "input": {"messages": [user(q)]}, "references": []} for i, q in enumerate(Q)],
    ],
    ids=["display_requests", "instances of messages"],
)
def test_prompts_of_helm_stand_in_several_files(tmp_path: Path, asked: Rows) -> None:
    rows = [{"instance_id": f"id{i}", "predicted_text": "x", "stats": {"exact_match": i % 2}} for i in range(3)]
    path = lines(tmp_path / "p.jsonl", rows)
    found = scores(f"a={path}", f"b={path}", lines(tmp_path / "q.jsonl", asked))
    assert found == [(q, {"a": i % 2, "b": i % 2}) for i, q in enumerate(Q)]


def test_rows_of_routerbench_are_also_long(tmp_path: Path) -> None:
    rows = [
        {"sample_id": f"s{i}", "eval_name": "e", "prompt": str([q]), "model_id": m, "performance": s}
        for i, q in enumerate(Q)
        for m, s in (("a", 1), ("b", 0))
    ]
    assert scores(lines(tmp_path / "raw.jsonl", rows)) == [(q, {"a": 1, "b": 0}) for q in Q]
    wide = [{"prompt": str([q]), "a": 1, "b": 0, "a|model_response": "['x']", "b|model_response": "y"} for q in Q]
    assert answers(lines(tmp_path / "wide.jsonl", wide)) == [(q, {"a": "x", "b": "y"}) for q in Q]


def test_candidates_of_distilabel_and_lists_of_sources(tmp_path: Path) -> None:
    rows: Rows = [
        {"instruction": "q", "generations": ["x", "y"], "generation_models": ["a", "b"], "ratings": [5, None]},
        {"prompt": "\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant: ", "source": ["s", "t"],
         "answers": [{"answer": "x", "model": "a", "rank": 1}, {"answer": "y", "model": "b", "rank": 2}]},
        {"instruction": "none", "completions": []},
    ]  # fmt: skip
    assert scores(lines(tmp_path / "d.jsonl", rows)) == [("q", {"a": 5}), ("q", {"a": -1, "b": -2})]
    assert next(read_answers(str(tmp_path / "d.jsonl"))).answers == {"a": "x", "b": "y"}


# Traffic.


@pytest.mark.parametrize(
    "row",
    [
        {"custom_id": "1", "url": "/v1/embeddings", "body": {"model": "e", "input": "never routed"}},
        {"spend": 0.1, "call_type": "aembedding", "messages": {}, "proxy_server_request": {"input": ["never routed"]}},
        {"request_path": "https://x/v1/embeddings", "request_body": {"input": "never routed"}},
    ],
    ids=["batch", "litellm", "helicone"],
)
def test_an_embedding_is_no_prompt(tmp_path: Path, row: dict[str, Any]) -> None:
    assert list(read_prompts(lines(tmp_path / "log.jsonl", [row]))) == []


def test_a_chat_is_a_chat_whatever_its_deployment_is_called(tmp_path: Path) -> None:
    body = {"messages": [user("q")]}
    row = {"request_path": "/openai/deployments/image-embedder/chat/completions", "request_body": body}
    assert list(read_prompts(lines(tmp_path / "log.jsonl", [row]))) == ["q"]


def test_rated_answers_with_models_are_a_long_table(tmp_path: Path) -> None:
    ratings = {"helpfulness": 4, "coherence": 4, "verbosity": 1}
    rows = [{"prompt": "q", "response": "x", "model": m, "correctness": s, **ratings} for m, s in (("a", 4), ("b", 2))]
    assert scores(lines(tmp_path / "rated.jsonl", rows)) == [("q", {"a": 4, "b": 2})]


@pytest.mark.parametrize(
    "row",
    [
        {"request_path": "/v1beta", "request_body": {"contents": [{"role": "user", "parts": [{"text": "q"}]}]}},
        {"type": "GENERATION", "traceId": "t", "input": {"args": [], "kwargs": {"messages": [user("q")]}}},
        {"span_kind": "LLM", "attributes": {"llm": {"input_messages": [
            {"message": {"role": "user", "contents": [{"message_content": {"type": "text", "text": "q"}}]}}
        ]}}},
        {"span_kind": "LLM", "attributes.llm.input_messages": str([{"message.role": "user", "message.content": "q"}])},
    ],
    ids=["gemini", "langfuse decorator", "phoenix parts", "phoenix in Python's words"],
)  # fmt: skip
def test_prompts_of_calls_in_other_shapes(tmp_path: Path, row: dict[str, Any]) -> None:
    assert list(read_prompts(lines(tmp_path / "log.jsonl", [row]))) == ["q"]


@pytest.mark.parametrize("first", ["call", "steps"])
def test_the_steps_of_a_call_of_vercel_count_once(tmp_path: Path, first: str) -> None:
    def span(name: str, own: str, parent: str | None, **attributes: Any) -> dict[str, Any]:
        return {
            "name": name,
            "spanId": own,
            "parentSpanId": parent,
            "attributes": {"ai.operationId": name, **attributes},
        }

    call = span("ai.generateText", "c", None, **{"ai.prompt": json.dumps({"prompt": "q"})})
    asked = json.dumps([user("q")])
    steps = [span("ai.generateText.doGenerate", f"s{i}", "c", **{"ai.prompt.messages": asked}) for i in range(3)]
    rows = [call, *steps] if first == "call" else [*steps, call]
    assert list(read_prompts(lines(tmp_path / "spans.jsonl", rows))) == ["q"]
