"""A small file of every foreign form, as the tools write them, with invented texts; `STAND_INS` says what is in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
BIG, SMALL = "acme/big-1.5", "small:7b"
# What is right of three prompts: big is better, both are the same, small is better.
QUESTIONS = ("What is 2 + 2?", 'Who wrote "Faust", and when?', "Name a prime\nbelow 10, e.g. 7")
SCORES = ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
SIGNS = dict(zip(QUESTIONS, (1, 0, -1), strict=True))


@dataclass(frozen=True)
class StandIn:
    """Files of a form.

    Attributes:
        form: Its name.
        files: The rows of each file by its name; a dict is one JSON object.
        models: The model of a file that does not name it.
        signs: For each prompt the sign of the strong minus the weak model; None for traffic.
        prompts: The prompts that are routed, where they are not those of `signs`.
        strong: Name of the strong model in the files.
        weak: Name of the weak one.
        tabular: Whether the rows are flat enough for CSV.
        costs: Whether costs are read.
        tokens: Whether tokens are read.
        answers: Whether answers are read.
    """

    form: str
    files: dict[str, Rows | dict[str, Any]]
    models: dict[str, str] = field(default_factory=dict)
    signs: dict[str, int] | None = field(default_factory=lambda: dict(SIGNS))
    prompts: tuple[str, ...] | None = None
    strong: str = BIG
    weak: str = SMALL
    tabular: bool = False
    costs: bool = False
    tokens: bool = False
    answers: bool = False


def each(row: Callable[[int, str, float, float], dict[str, Any]]) -> Rows:
    """A row for each question, of its number, text and the scores of both models."""
    return [row(i, question, *scores) for i, (question, scores) in enumerate(zip(QUESTIONS, SCORES, strict=True))]


def of_models(row: Callable[[int, str, str, float], dict[str, Any]]) -> Rows:
    """A row for each question and model."""
    return [
        row(i, question, model, score)
        for i, (question, scores) in enumerate(zip(QUESTIONS, SCORES, strict=True))
        for model, score in zip((BIG, SMALL), scores, strict=True)
    ]


def of_one(model: str, row: Callable[[int, str, float], dict[str, Any]]) -> Rows:
    """A row for each question, about one model."""
    side = (BIG, SMALL).index(model)
    return [row(i, q, scores[side]) for i, (q, scores) in enumerate(zip(QUESTIONS, SCORES, strict=True))]


def winner(big: float, small: float, *, names: tuple[str, str, str] = ("model_a", "model_b", "tie")) -> str:
    return names[0] if big > small else names[1] if small > big else names[2]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def put(folder: Path, stand_in: StandIn, writer: Callable[[Path, Any], Path] | None = None) -> list[str]:
    """Write the files of a stand-in; what --data is to say for each."""
    out = []
    for name, rows in stand_in.files.items():
        path = (writer or write_json)(folder / name, rows)
        out.append(f"{stand_in.models[name]}={path}" if name in stand_in.models else str(path))
    return out


def write_json(path: Path, rows: Any) -> Path:
    """JSON lines, or one object or array where the name says .json; a zip archive where it says .eval."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".eval":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps({k: v for k, v in rows.items() if k != "samples"}))
            for sample in rows["samples"]:
                archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _inspect(model: str) -> dict[str, Any]:
    letters = {1.0: "C", 0.0: "I"}
    return {
        "version": 2,
        "status": "success",
        "eval": {"task": "facts", "model": model, "dataset": {"name": "facts"}},
        "plan": {"name": "plan"},
        "samples": of_one(
            model,
            lambda i, q, score: {
                "id": i,
                "epoch": 1,
                "input": q if i else [{"role": "system", "content": "Be brief."}, user(q)],
                "target": "x",
                "output": {
                    "model": model,
                    "choices": [{"message": {"role": "assistant", "content": f"answer {i}"}, "stop_reason": "stop"}],
                },
                "scores": {"match": {"value": letters[score], "answer": "x"}},
                "model_usage": {model: {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}},
            },
        ),
    }


def _lm_eval(model: str) -> Rows:
    return of_one(
        model,
        lambda i, q, score: {
            "doc_id": i,
            "doc": {"question": q, "answer": "x"},
            "target": "x",
            "arguments": {"gen_args_0": {"arg_0": f"Question: {q}\nAnswer:", "arg_1": {"until": ["\n"]}}},
            "resps": [["so x"]],
            "filtered_resps": ["x"],
            "filter": "strict-match",
            "metrics": ["exact_match"],
            "doc_hash": f"hash{i}",
            "exact_match": score,
        },
    )


def _routerarena(model: str) -> Rows:
    return of_one(
        model,
        lambda i, q, score: {
            "global_index": f"FACTS_{i}",
            "question": q,
            "llm_selected": model,
            "generated_answer": f"answer {i}",
            "token_usage": {"input_tokens": 12, "output_tokens": 34, "total_tokens": 46},
            "success": True,
            "error": None,
            "evaluation_result": {"ground_truth": "x", "score": score, "metric": "m", "inference_cost": 0.001},
        },
    )


def _llmrouterbench(model: str) -> dict[str, Any]:
    return {
        "performance": 0.5,
        "model_name": model,
        "dataset_name": "facts",
        "split": "test",
        "records": of_one(
            model,
            lambda i, q, score: {
                "index": i,
                "origin_query": q,
                "prompt": f"Answer in a word: {q}",
                "prediction": "x",
                "ground_truth": "x",
                "score": score,
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "cost": 0.002,
            },
        ),
    }


def _openai_evals(model: str) -> Rows:
    rows: Rows = [{"spec": {"completion_fns": [model], "eval_name": "facts.v0", "run_id": "r1"}}]
    for i, row in enumerate(of_one(model, lambda i, q, score: {"q": q, "score": score})):
        event = {"run_id": "r1", "sample_id": f"facts.{i}", "created_by": ""}
        system = {"role": "system", "content": "Be brief."}
        sampled = {"prompt": [system, user(row["q"])], "sampled": [f"answer {i}"]}
        rows += [
            {**event, "event_id": 2 * i, "type": "sampling", "data": sampled},
            {**event, "event_id": 2 * i + 1, "type": "match", "data": {"correct": row["score"] == 1, "expected": "x"}},
        ]
    return [*rows, {"final_report": {"accuracy": 0.5}}]


def _promptfoo() -> dict[str, Any]:
    return {
        "evalId": "e",
        "results": {
            "version": 3,
            "results": of_models(
                lambda i, q, model, score: {
                    "promptIdx": 0,
                    "testIdx": i,
                    "testCase": {"vars": {"question": q}},
                    "provider": {"id": model, "label": ""},
                    "prompt": {"raw": q, "label": "{{question}}"},
                    "vars": {"question": q},
                    "response": {"output": f"answer {i}", "tokenUsage": {"total": 20, "prompt": 15, "completion": 5}},
                    "success": score == 1,
                    "score": score,
                    "cost": 0.0001,
                }
            ),
        },
    }


def _helm(model: str) -> Rows:
    return of_one(
        model,
        lambda i, q, score: {
            "instance_id": f"id{i}",
            "predicted_text": f"answer {i}",
            "train_trial_index": 0,
            "stats": {"num_references": 4, "exact_match": score},
        },
    )


_HELM_INSTANCES = each(
    lambda i, q, big, small: {
        "id": f"id{i}",
        "input": {"text": q},
        "references": [{"output": {"text": "y"}, "tags": []}, {"output": {"text": "x"}, "tags": ["correct"]}],
        "split": "test",
    }
)
_GAMES = ("A>>B", "B>>A", "A=B")


def _arena_hard_games(q: str, big: float, small: float) -> list[dict[str, str]]:
    asked = f"<|User Prompt|>\n{q}\n\n<|The Start of Assistant A's Answer|>\nx\n<|The End of Assistant A's Answer|>"
    first = winner(big, small, names=_GAMES)
    second = winner(small, big, names=_GAMES)
    return [{"user_prompt": asked, "judgment": f"[[{s}]]", "score": s} for s in (first, second)]


def _span(name: str, attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "spanId": name, "traceId": "t", "attributes": attributes, **more}


def _otlp(attributes: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


def _batch_answer(model: str, i: int) -> dict[str, Any]:
    return {
        "custom_id": f"r{i}",
        "response": {
            "status_code": 200,
            "body": {
                "model": model,
                "choices": [{"message": said(f"answer {i} of {model}")}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 3},
            },
        },
        "error": None,
    }


STAND_INS: dict[str, StandIn] = {
    "wide": StandIn(
        "wide",
        {"wide.jsonl": each(lambda i, q, b, s: {"prompt": q, BIG: b, SMALL: s})},
        tabular=True,
    ),
    "wide, true and false, responses, other case": StandIn(
        "wide",
        {
            "authors.jsonl": each(
                lambda i, q, b, s: {
                    "Question": q,
                    SMALL: "True" if s else "False",
                    BIG: "True" if b else "False",
                    f"{SMALL}_response": f"answer {i}",
                    f"{BIG}_response": f"answer {i}",
                    f"{BIG}_cost": 0.01,
                    f"{SMALL}_cost": 0.001,
                    f"{BIG}_input_tokens": 10,
                    f"{BIG}_output_tokens": 20,
                    "difficulty": i,
                }
            )
        },
        tabular=True,
        costs=True,
        tokens=True,
        answers=True,
    ),
    "wide, an object a model": StandIn(
        "wide",
        {
            "sprout.jsonl": each(
                lambda i, q, b, s: {
                    "key": f"k{i}",
                    "prompt": q,
                    "golden_answer": "x",
                    BIG: {"num_input_tokens": 9, "num_output_tokens": 8, "response": "x", "score": b},
                    SMALL: {"num_input_tokens": 9, "num_output_tokens": 8, "response": "y", "score": s},
                }
            )
        },
        tokens=True,
        answers=True,
    ),
    "routerbench": StandIn(
        "routerbench",
        {
            "rb.jsonl": each(
                lambda i, q, b, s: {
                    "sample_id": f"facts.{i}",
                    "prompt": repr([q]),
                    "eval_name": "facts",
                    BIG: b,
                    SMALL: s,
                    f"{BIG}|model_response": "['x']",
                    f"{SMALL}|model_response": "['y']",
                    f"{BIG}|total_cost": 0.01,
                    f"{SMALL}|total_cost": 0.0001,
                    "oracle_model_to_route_to": SMALL,
                }
            )
        },
        tabular=True,
        costs=True,
        answers=True,
    ),
    "long": StandIn(
        "long",
        {
            "long.jsonl": of_models(
                lambda i, q, model, score: {
                    "task_name": "facts",
                    "query": q,
                    "ground_truth": "x",
                    "model_name": model,
                    "response": f"answer {i}",
                    "input_tokens": 20,
                    "output_tokens": 10,
                    "performance": score,
                    "cost": 0.0001,
                    "embedding_id": i,
                }
            )
        },
        tabular=True,
        costs=True,
        tokens=True,
        answers=True,
    ),
    "one_model": StandIn(
        "one_model",
        {
            "a.jsonl": of_one(BIG, lambda i, q, score: {"prompt": q, "correct": score}),
            "b.jsonl": of_one(SMALL, lambda i, q, score: {"prompt": q, "correct": score}),
        },
        models={"a.jsonl": BIG, "b.jsonl": SMALL},
        tabular=True,
    ),
    "renamed": StandIn(
        "renamed",
        {"q.jsonl": each(lambda i, q, b, s: {"question_id": i, "question": q, "scores": {BIG: b, SMALL: s}})},
    ),
    "arena, 33k": StandIn(
        "arena",
        {
            "33k.jsonl": each(
                lambda i, q, b, s: {
                    "question_id": f"{i:032}",
                    "model_a": SMALL,
                    "model_b": BIG,
                    "winner": winner(s, b, names=("model_a", "model_b", "tie (bothbad)")),
                    "judge": "arena_user_1",
                    "conversation_a": [user(q), said("x"), user("And then?"), said("y")],
                    "conversation_b": [user(q), said("z"), user("And then?"), said("y")],
                    "turn": 2,
                }
            )
        },
    ),
    "arena, 55k": StandIn(
        "arena",
        {
            "55k.jsonl": each(
                lambda i, q, b, s: {
                    "id": i,
                    "model_a": BIG,
                    "model_b": SMALL,
                    "prompt": json.dumps([q, "And then?"]),
                    "response_a": '["x"]',
                    "response_b": '["y"]',
                    "winner_model_a": int(b > s),
                    "winner_model_b": int(s > b),
                    "winner_tie": int(b == s),
                }
            )
        },
        tabular=True,
    ),
    "arena, 55k without labels": StandIn(
        "arena",
        {
            "test.jsonl": each(
                lambda i, q, b, s: {"id": i, "prompt": json.dumps([q]), "response_a": '["x"]', "response_b": '["y"]'}
            )
        },
        signs=None,
        prompts=QUESTIONS,
        tabular=True,
    ),
    "arena, 140k": StandIn(
        "arena",
        {
            "140k.jsonl": each(
                lambda i, q, b, s: {
                    "id": f"u{i}",
                    "model_a": BIG,
                    "model_b": SMALL,
                    "winner": winner(b, s, names=("model_a", "model_b", "both_bad")),
                    "evaluation_session_id": "e",
                    "conversation_a": [{"role": "user", "content": [{"type": "text", "text": q, "image": None}]}],
                    "conversation_b": [{"role": "user", "content": [{"type": "text", "text": q, "image": None}]}],
                    "full_conversation": [{"user": user(q)}],
                    "is_code": False,
                }
            )
        },
    ),
    "ultrafeedback": StandIn(
        "ultrafeedback",
        {
            "uf.jsonl": each(
                lambda i, q, b, s: {
                    "source": "facts",
                    "instruction": q,
                    "models": [BIG, SMALL],
                    "completions": [
                        {"model": BIG, "overall_score": 5 + b, "response": "x"},
                        {"model": SMALL, "overall_score": 5 + s, "response": "y"},
                    ],
                }
            )
        },
        answers=True,
    ),
    "ultrafeedback, ranks of Nectar": StandIn(
        "ultrafeedback",
        {
            "nectar.jsonl": each(
                lambda i, q, b, s: {
                    "prompt": f"\n\nHuman: {q}\n\nAssistant: ",
                    "answers": [
                        {"answer": "x", "model": BIG, "rank": 2.0 - b},
                        {"answer": "y", "model": SMALL, "rank": 2.0 - s},
                    ],
                    "turns": 1,
                }
            )
        },
        answers=True,
    ),
    "pairs": StandIn(
        "pairs",
        {
            "pairs.jsonl": each(
                lambda i, q, b, s: {
                    "prompt": q,
                    "chosen": [user(q), said("x")],
                    "rejected": [user(q), said("y")],
                    "chosen-model": BIG if b >= s else SMALL,
                    "rejected-model": SMALL if b >= s else BIG,
                    "chosen-rating": 5.0,
                    "rejected-rating": 5.0 if b == s else 2.0,
                }
            )
        },
    ),
    "alpaca_eval": StandIn(
        "alpaca_eval",
        {
            "annotations.json": each(
                lambda i, q, b, s: {
                    "instruction": q,
                    "output_1": "x",
                    "generator_1": SMALL,
                    "output_2": "y",
                    "generator_2": BIG,
                    "dataset": "facts",
                    "annotator": "judge",
                    "preference": 1.5 + (b - s) / 2,
                }
            )
        },
        tabular=True,
        answers=True,
    ),
    "helpsteer": StandIn(
        "helpsteer",
        {
            "preference.jsonl": each(
                lambda i, q, b, s: {
                    "domain": "general",
                    "language": "english",
                    "context": [user(q)],
                    "response1": "x",
                    "model_1": SMALL,
                    "response2": "y",
                    "model_2": BIG,
                    "overall_preference": 2 * int(b - s),
                    "individual_preference": [{"score": 2, "reasoning": "clearer", "feedback1": "", "feedback2": ""}],
                }
            )
        },
    ),
    "arena_hard": StandIn(
        "arena_hard",
        {
            "judgment.jsonl": each(
                lambda i, q, b, s: {
                    "question_id": f"q{i}",
                    "model": SMALL,
                    "judge": "judge",
                    "games": _arena_hard_games(q, b, s),
                }
            )
        },
        strong="baseline",
    ),
    "arena_hard, with the questions in a file of their own": StandIn(
        "arena_hard",
        {
            "judgment.jsonl": each(
                lambda i, q, b, s: {
                    "uid": f"q{i}",
                    "model": SMALL,
                    "judge": "judge",
                    "games": [{**game, "user_prompt": "(cut)"} for game in _arena_hard_games(q, b, s)],
                }
            ),
            "question.jsonl": each(lambda i, q, b, s: {"uid": f"q{i}", "category": "facts", "prompt": q}),
        },
        strong="baseline",
    ),
    "mt_bench, single": StandIn(
        "mt_bench",
        {
            "single.jsonl": [
                row
                for turn in (1, 2)
                for row in of_models(
                    lambda i, q, model, score, turn=turn: {  # type: ignore[misc]
                        "question_id": 80 + i,
                        "model": model,
                        "judge": ["judge", "single-v1"],
                        "user_prompt": "(cut)",
                        "judgment": "(cut)",
                        "score": 5 + score,
                        "turn": turn,
                    }
                )
            ],
            "question.jsonl": each(lambda i, q, b, s: {"question_id": 80 + i, "category": "x", "turns": [q, "Why?"]}),
        },
    ),
    "mt_bench, pairs": StandIn(
        "mt_bench",
        {
            "pair.jsonl": each(
                lambda i, q, b, s: {
                    "question_id": 80 + i,
                    "model_1": SMALL,
                    "model_2": BIG,
                    "g1_winner": winner(s, b, names=("model_1", "model_2", "tie")),
                    "g2_winner": winner(s, b, names=("model_1", "model_2", "tie")),
                    "judge": ["judge", "pair-v2"],
                    "g1_user_prompt": f"[User Question]\n{q}\n\n[The Start of Assistant A's Answer]\nx",
                    "turn": 1,
                }
            )
        },
    ),
    "routerarena": StandIn(
        "routerarena",
        {"a.jsonl": _routerarena(BIG), "b.jsonl": _routerarena(SMALL)},
        costs=True,
        tokens=True,
        answers=True,
    ),
    "llmrouterbench": StandIn(
        "llmrouterbench",
        {"a.json": _llmrouterbench(BIG), "b.json": _llmrouterbench(SMALL)},
        costs=True,
        tokens=True,
        answers=True,
    ),
    "lm_eval": StandIn(
        "lm_eval",
        {"big/samples_facts.jsonl": _lm_eval(BIG), "small/samples_facts.jsonl": _lm_eval(SMALL)},
        models={"big/samples_facts.jsonl": BIG, "small/samples_facts.jsonl": SMALL},
        answers=True,
    ),
    "inspect, .eval": StandIn(
        "inspect", {"a.eval": _inspect(BIG), "b.eval": _inspect(SMALL)}, tokens=True, answers=True
    ),
    "inspect, .json": StandIn(
        "inspect", {"a.json": _inspect(BIG), "b.json": _inspect(SMALL)}, tokens=True, answers=True
    ),
    "promptfoo": StandIn("promptfoo", {"results.json": _promptfoo()}, costs=True, tokens=True, answers=True),
    "promptfoo, lines": StandIn(
        "promptfoo", {"results.jsonl": _promptfoo()["results"]["results"]}, costs=True, tokens=True, answers=True
    ),
    "openai_evals": StandIn(
        "openai_evals", {"a.jsonl": _openai_evals(BIG), "b.jsonl": _openai_evals(SMALL)}, answers=True
    ),
    "helm": StandIn(
        "helm",
        {
            "big/display_predictions.json": _helm(BIG),
            "small/display_predictions.json": _helm(SMALL),
            "big/instances.json": _HELM_INSTANCES,
        },
        models={"big/display_predictions.json": BIG, "small/display_predictions.json": SMALL},
        answers=True,
    ),
    "batch, OpenAI": StandIn(
        "batch",
        {
            "in.jsonl": each(
                lambda i, q, b, s: {
                    "custom_id": f"r{i}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, user(q)]},
                }
            ),
            "big.jsonl": [_batch_answer(BIG, i) for i in range(3)],
            "small.jsonl": [_batch_answer(SMALL, i) for i in range(3)],
        },
        signs=None,
        prompts=QUESTIONS,
        answers=True,
        tokens=True,
    ),
    "batch, Anthropic": StandIn(
        "batch",
        {
            "in.jsonl": each(
                lambda i, q, b, s: {
                    "custom_id": f"r{i}",
                    "params": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": q}]},
                }
            ),
            "out.jsonl": [
                {
                    "custom_id": f"r{i}",
                    "result": {
                        "type": "succeeded",
                        "message": {
                            "model": model,
                            "content": [{"type": "text", "text": f"answer {i}"}],
                            "usage": {"input_tokens": 5, "output_tokens": 6},
                        },
                    },
                }
                for model in (BIG, SMALL)
                for i in range(3)
            ],
        },
        signs=None,
        prompts=QUESTIONS,
        answers=True,
        tokens=True,
    ),
    "long_answers": StandIn(
        "long_answers",
        {"a.jsonl": of_models(lambda i, q, model, score: {"prompt": q, "model": model, "response": f"answer {i}"})},
        signs=None,
        prompts=tuple(q for q in QUESTIONS for _ in range(2)),
        tabular=True,
        answers=True,
    ),
    "conversations, ShareGPT": StandIn(
        "conversations",
        {
            "sharegpt.json": [
                {
                    "id": f"c{i}",
                    "conversations": [
                        {"from": "human", "value": q},
                        {"from": "gpt", "value": "x"},
                        {"from": "human", "value": "And why?"},
                    ],
                }
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=tuple(text for q in QUESTIONS for text in (q, "And why?")),
    ),
    "conversations, LMSYS-Chat": StandIn(
        "conversations",
        {
            "lmsys.jsonl": [
                {"conversation_id": f"c{i}", "model": BIG, "conversation": [user(q), said("x")], "turn": 1}
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "questions": StandIn(
        "questions",
        {"qa.jsonl": each(lambda i, q, b, s: {"id": i, "question": q, "answer": "x"})},
        signs=None,
        prompts=QUESTIONS,
        tabular=True,
    ),
    "litellm": StandIn(
        "litellm",
        {
            "spend.jsonl": [
                {
                    "request_id": f"r{i}",
                    "call_type": "acompletion",
                    "spend": 0.001,
                    "model": BIG,
                    "messages": [user(q)] if i else {},
                    "response": {},
                    "proxy_server_request": {} if i else {"model": BIG, "messages": [user(q)]},
                }
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "helicone": StandIn(
        "helicone",
        {
            "helicone.jsonl": [
                {
                    "request_id": f"r{i}",
                    "request_body": {"model": BIG, "messages": [user(q)]},
                    "response_body": {"choices": [{"message": said("x")}]},
                    "cost": 0.1,
                }
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "langsmith": StandIn(
        "langsmith",
        {
            "runs.jsonl": [
                {"id": f"r{i}", "run_type": kind, "inputs": {"messages": [[{"role": "user", "content": q}]]}}
                for i, q in enumerate(QUESTIONS)
                for kind in ("chain", "llm")
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "langfuse": StandIn(
        "langfuse",
        {
            "observations.jsonl": [
                {"id": f"o{i}", "traceId": "t", "type": kind, "input": [user(q)], "output": "x"}
                for i, q in enumerate(QUESTIONS)
                for kind in ("SPAN", "GENERATION")
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "vercel": StandIn(
        "vercel",
        {
            "spans.jsonl": [
                span
                for i, q in enumerate(QUESTIONS)
                for span in (
                    _span(
                        f"step {i}",
                        {
                            "ai.operationId": "ai.generateText.doGenerate",
                            "ai.prompt.messages": json.dumps(
                                [{"role": "user", "content": [{"type": "text", "text": q}]}]
                            ),
                        },
                        parentSpanId=f"call {i}",
                    ),
                    _span(f"call {i}", {"ai.operationId": "ai.generateText", "ai.prompt": json.dumps({"prompt": q})}),
                )
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "vercel, calls alone": StandIn(
        "vercel",
        {
            "spans.jsonl": [
                _span(
                    f"call {i}", {"ai.operationId": "ai.streamText", "ai.prompt": json.dumps({"messages": [user(q)]})}
                )
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "opentelemetry, Phoenix nested": StandIn(
        "opentelemetry",
        {
            "phoenix.jsonl": [
                {
                    "name": "ChatOpenAI",
                    "context": {"trace_id": "t", "span_id": f"s{i}"},
                    "span_kind": "LLM",
                    "attributes": {
                        "llm": {"model_name": BIG, "input_messages": [{"message": user(q)}]},
                        "openinference": {"span": {"kind": "LLM"}},
                    },
                }
                for i, q in enumerate(QUESTIONS)
            ]
        },
        signs=None,
        prompts=QUESTIONS,
    ),
    "opentelemetry, Phoenix columns": StandIn(
        "opentelemetry",
        {
            "phoenix.jsonl": [
                {
                    "name": "ChatOpenAI",
                    "span_kind": "LLM",
                    "attributes.openinference.span.kind": "LLM",
                    "attributes.llm.input_messages": json.dumps([{"message.role": "user", "message.content": q}]),
                }
                for q in QUESTIONS
            ]
        },
        signs=None,
        prompts=QUESTIONS,
        tabular=True,
    ),
    "opentelemetry, Tempo": StandIn(
        "opentelemetry",
        {
            "trace.json": {
                "batches": [
                    {
                        "resource": {},
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "name": "chat",
                                        "attributes": _otlp(
                                            {
                                                "gen_ai.operation.name": "chat",
                                                "gen_ai.input.messages": json.dumps(
                                                    [{"role": "user", "parts": [{"type": "text", "content": q}]}]
                                                ),
                                            }
                                        ),
                                    }
                                    for q in QUESTIONS
                                ]
                            }
                        ],
                    }
                ]
            }
        },
        signs=None,
        prompts=QUESTIONS,
    ),
}
