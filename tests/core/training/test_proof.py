"""What proves a router: no prompt, and no group, ever stands on both sides of a split or a fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routellm_core import load_router
from routellm_core.data import Battle, Outcome
from routellm_core.data.contamination import prompt_key
from routellm_core.errors import DataError
from routellm_core.training.proof import Split, TrainingData, fold_of, out_of_fold_win_rates, prove
from routellm_core.training.summary import Trained, finish_training

WORDS = ("alpha", "beta", "gamma", "delta", "invoice", "refund", "parcel", "proof", "table", "weather")


def outcome(prompt: str, strong: float = 1.0, weak: float = 0.0) -> Outcome:
    return Outcome(prompt=prompt, scores={"s": strong, "w": weak})


def repeated(count: int, copies: int = 3) -> list[Outcome]:
    """Prompts that come again in other case, punctuation and spacing."""
    forms = [lambda p: p, str.upper, lambda p: p.replace(" ", ",  ") + "?!"]
    prompts = [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} number {i}" for i in range(count)]
    return [outcome(forms[c % len(forms)](p)) for p in prompts for c in range(copies)]


class Memory:
    """A router that gives 1 for what it has seen and 0 for what it has not."""

    def __init__(self, records: Sequence[Any], key: Any) -> None:
        self.key = key
        self.seen = {key(record.prompt) for record in records}

    def win_rates(self, prompts: Sequence[str]) -> Any:
        return np.array([float(self.key(prompt) in self.seen) for prompt in prompts])


@pytest.mark.parametrize("folds", [2, 5, 20])
def test_no_prompt_is_scored_by_a_router_that_saw_it_or_a_repeat_of_it(folds: int) -> None:
    records = repeated(60)
    rates = out_of_fold_win_rates(lambda rows: Memory(rows, prompt_key), records, folds=folds, seed=1)
    assert rates.keys() == {record.prompt for record in records}
    assert set(rates.values()) == {0.0}


def test_no_prompt_is_scored_by_a_router_that_saw_its_group() -> None:
    records = [outcome(f"{WORDS[i % 10]} question {i}") for i in range(120)]
    conversation = {prompt_key(record.prompt): f"conversation {i // 4}" for i, record in enumerate(records)}
    groups = [conversation[prompt_key(record.prompt)] for record in records]
    fit = lambda rows: Memory(rows, lambda prompt: conversation[prompt_key(prompt)])  # noqa: E731
    assert set(out_of_fold_win_rates(fit, records, folds=5, groups=groups).values()) == {0.0}
    # by prompt alone, turns of most conversations are on both sides
    assert np.mean(list(out_of_fold_win_rates(fit, records, folds=5).values())) > 0.9


def test_a_prompt_in_two_groups_is_refused_and_so_are_missing_groups() -> None:
    records = [outcome(f"question {i}") for i in range(40)] + [outcome("Question 7!")]
    groups = [f"conversation {i}" for i in range(41)]
    fit = lambda rows: Memory(rows, prompt_key)  # noqa: E731
    with pytest.raises(DataError, match=r"records\[40\]: its prompt is also in another group"):
        out_of_fold_win_rates(fit, records, folds=10, groups=groups)
    groups[40] = groups[7]
    assert set(out_of_fold_win_rates(fit, records, folds=10, groups=groups).values()) == {0.0}
    with pytest.raises(DataError, match="groups has 3 names for 41 records"):
        out_of_fold_win_rates(fit, records, folds=5, groups=groups[:3])


def test_metrics_and_calibration_are_those_of_the_unseen_win_rates(tmp_path: Path) -> None:
    records = [outcome(f"prompt {i}", 1, i % 2) for i in range(100)]
    prompts = [record.prompt for record in records]
    # the router itself knows nothing; the routers of the folds were right everywhere
    unseen = {record.prompt: 0.75 if record.scores["w"] == 0 else 0.25 for record in records}
    trained = Trained(
        router=load_router("random"),
        strong="s",
        weak="w",
        measure_on=records,
        calibrate_on=prompts,
        rows={"train": 100},
        sources={None: 100},
        settings={},
        unseen=unseen,
        folds=5,
    )
    summary = finish_training(trained, tmp_path / "r", started=time.monotonic(), draws=20)
    assert summary.evaluation is not None
    assert summary.evaluation.metrics["apgr"].value == pytest.approx(0.75)
    calibration = load_router(tmp_path / "r").calibration
    assert calibration is not None
    assert [calibration.strong_fraction(threshold=t) for t in (0.2, 0.5, 0.8)] == pytest.approx([1.0, 0.5, 0.0])


def test_folds_are_even_and_follow_the_seed() -> None:
    names = [f"prompt {i}" for i in range(5000)]
    fold = np.array([fold_of(name, 5, 3) for name in names])
    assert np.bincount(fold, minlength=5) == pytest.approx([1000] * 5, abs=120)
    assert fold_of("Prompt, 17!", 5, 3) == fold_of("prompt 17", 5, 3)
    assert (fold == [fold_of(name, 5, 4) for name in names]).mean() == pytest.approx(0.2, abs=0.03)


def test_records_in_memory_are_split_by_prompt() -> None:
    records = repeated(200)
    data = TrainingData.of(records, Split(validation=0.2, held_out=0.3, seed=5), strong="s", weak="w")
    parts = [{prompt_key(r.prompt) for r in part} for part in (data.train, data.validation, data.held_out)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert len(data.train) + len(data.validation) + len(data.held_out) == 600


def test_the_proof_stands_beside_the_bundled_router_and_needs_the_pair() -> None:
    records = [outcome(f"easy {i}", 1, 1) for i in range(40)] + [outcome(f"hard {i}", 1, 0) for i in range(40)]
    perfect = lambda prompts: np.array([float("hard" in prompt) for prompt in prompts])  # noqa: E731
    proof = prove(perfect, records, name="mine", strong="s", weak="w", draws=50)
    assert proof is not None
    assert proof.bundled is not None
    assert proof.gain is not None
    mine, bundled = proof.evaluation.metrics["apgr"].value, proof.bundled["apgr"].value
    assert mine > 0.7
    assert proof.gain.difference.value == pytest.approx(mine - bundled)
    other = [Battle(prompt="p", model_a="s", model_b="x", winner="tie")]
    assert prove(perfect, other, name="mine", strong="s", weak="w") is None
