"""Runs of HELM: scenario_state.json, per_instance_stats.json, display_predictions.json and instances.json of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from routellm_core.data.files import Row, kind_of
from routellm_core.data.forms.base import BadRowError, Form, Located, Problem, rows_of_model, unwrapped
from routellm_core.data.forms.values import UNNAMED, name_text, one_models_row, opening, score_of, text_of

# Statistics that are no metric.
_COUNTS = ("num_", "inference_", "training_", "prompt_", "max_", "finish_")
# The main metric of a run, the likeliest first; else the first number counts that is no count or time.
_METRICS = (
    "quasi_exact_match",
    "exact_match",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "final_number_exact_match",
    "math_equiv_chain_of_thought",
    "math_equiv",
    "ifeval_strict_accuracy",
    "wildbench_score",
    "chain_of_thought_correctness",
    "omni_math_accuracy",
    "f1_score",
    "rouge_l",
    "bleu_4",
    "accuracy",
)


def _is_state(row: Row) -> bool:
    return "request_states" in row


def _matches(rows: Sequence[Row]) -> bool:
    return any(
        _is_state(row)
        or ("instance_id" in row and row.keys() & {"stats", "predicted_text", "train_trial_index", "request"})
        or ("references" in row and "input" in row and "id" in row)
        or ("instance" in row and "request" in row)
        for row in rows
    )


def _rows(located: Iterable[Located], model: str | None) -> Iterator[tuple[str, Row | Problem]]:
    for where, row in located:
        named = model
        if named is None and isinstance(spec := row.get("adapter_spec"), dict) and isinstance(spec.get("model"), str):
            named = spec["model"]
        rows = unwrapped([(where, row)], ("request_states",)) if _is_state(row) else [(where, row)]
        yield from rows_of_model(_translated)(rows, named)


def _translated(row: Row, model: str | None) -> Row | None:
    named = UNNAMED if model is None else model
    if "instance_id" in row and "request" in row and "stats" not in row:
        return _display_request(row)
    if "stats" in row or "predicted_text" in row:
        name = row.get("instance_id")
        if not isinstance(name, str | int):
            raise BadRowError(f"field 'instance_id': expected a name, got {kind_of(name)}")
        if isinstance(perturbed := row.get("perturbation"), dict) and perturbed:
            return None  # the same instance again, changed to test robustness
        score = _stat(row.get("stats"))
        return one_models_row(
            {"id": str(name)}, named, score=score, answer=text_of(row.get("predicted_text"), "predicted_text")
        )
    if "request" in row:
        return _request_state(row, named)
    return _instance(row)


def _display_request(row: Row) -> Row | None:
    """What display_requests.json says of an instance: what the model was sent."""
    request = row["request"]
    if not isinstance(request, dict) or not isinstance(row["instance_id"], str | int):
        raise BadRowError("fields 'instance_id' and 'request': expected a name and an object")
    if row.get("perturbation"):
        return None
    prompt = opening(request.get("messages")) or opening(request.get("prompt"))
    if prompt is None:
        raise BadRowError(f"field 'request.prompt': expected a text, got {kind_of(request.get('prompt'))}")
    return {"id": str(row["instance_id"]), "prompt": prompt}


def _instance(row: Row) -> Row:
    text = row.get("input")
    if isinstance(text, dict):
        text = text.get("messages") or text.get("text")
    prompt = opening(text)
    if prompt is None:
        raise BadRowError(f"field 'input.text': expected a text, got {kind_of(text)}")
    out: Row = {"prompt": prompt}
    if isinstance(row.get("id"), str | int):
        out["id"] = str(row["id"])
    references = row.get("references")
    for reference in references if isinstance(references, list) else ():
        if isinstance(reference, dict) and "correct" in (reference.get("tags") or ()):
            output = reference.get("output")
            out["gold"] = text_of(output.get("text") if isinstance(output, dict) else output, "references.output")
            break
    return out


def _request_state(row: Row, model: str) -> Row:
    instance, request, result = (row.get(name) for name in ("instance", "request", "result"))
    if not isinstance(instance, dict) or not isinstance(request, dict):
        raise BadRowError("fields 'instance' and 'request': expected objects")
    completions = result.get("completions") if isinstance(result, dict) else None
    first = completions[0] if isinstance(completions, list) and completions else None
    named = model or request.get("model")
    return one_models_row(
        _instance(instance),
        UNNAMED if named is None else name_text(named, "request.model"),
        answer=text_of(first.get("text"), "result.completions") if isinstance(first, dict) else None,
    )


def _stat(stats: Any) -> float | None:
    """The main metric of an instance, out of an object or of the list of per_instance_stats.json."""
    values: dict[str, Any] = {}
    if isinstance(stats, dict):
        values = stats
    elif isinstance(stats, list):
        for stat in stats:
            name = stat.get("name") if isinstance(stat, dict) else None
            if isinstance(name, dict) and isinstance(name.get("name"), str) and not name.get("perturbation"):
                values.setdefault(name["name"], stat.get("mean", stat.get("sum")))
    elif stats is not None:
        raise BadRowError(f"field 'stats': expected an object or a list, got {kind_of(stats)}")
    name = next((name for name in _METRICS if name in values), None)
    if name is None:
        others = [name for name in values if not name.startswith(_COUNTS)]
        name = others[0] if others else None
    return None if name is None else score_of(values[name], f"stats.{name}")


HELM = Form(
    name="helm",
    title="HELM runs: scenario_state.json, or display_predictions.json and per_instance_stats.json with instances.json",
    fields=("request_states", "adapter_spec", "instance_id", "stats", "predicted_text", "train_trial_index"),
    matches=_matches,
    holds=("prompts", "answers", "scores"),
    rows=_rows,
    joins=True,
    needs="--data NAME=FILE for each model, and instances.json for the prompts",
)
