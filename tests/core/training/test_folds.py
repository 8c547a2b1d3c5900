"""Cross-validation never lets a prompt's own rows help to predict it: rows of one prompt are in one fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from routellm_core.data.records import Outcome
from routellm_core.training import fit_pair
from routellm_core.training.embedding_routers import train_embedding_router
from routellm_core.training.proof import Split, fold_of


def coins(count: int, seed: int = 0) -> np.ndarray:
    """As many 1 as 0, in random order."""
    return np.random.default_rng(seed).permutation(np.arange(count) % 2).astype(float)


def test_the_penalty_of_a_pair_is_not_chosen_by_rows_that_are_in_training() -> None:
    """Labels that are a coin for each prompt, six rows each: only a leak makes a weak penalty look good."""
    rng = np.random.default_rng(5)
    x = np.repeat(np.column_stack([rng.standard_normal((60, 80)), np.ones(60)]), 6, axis=0)
    labels, groups = np.repeat(coins(60), 6), np.repeat(np.arange(60), 6)
    chosen = {}
    for name, given in (("grouped", groups), ("leaking", None)):
        told: list[dict[str, object]] = []
        fit_pair(x, labels, groups=given, on_step=told.append)
        chosen[name] = next(step["l2"] for step in told if step["chosen"])
    assert chosen["leaking"] < 0.01  # type: ignore[operator]
    assert chosen["grouped"] >= 1.0  # type: ignore[operator]


def test_the_order_of_rows_and_the_names_of_groups_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    x, labels = rng.standard_normal((120, 5)), rng.random(120)
    groups = np.repeat(np.arange(40), 3)
    order = rng.permutation(120)
    expected = fit_pair(x, labels, groups=groups)
    np.testing.assert_allclose(fit_pair(x[order], labels[order], groups=groups[order]), expected, atol=1e-6)
    np.testing.assert_allclose(fit_pair(x, labels, groups=10 * groups + 7), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["knn", "mf"])
def test_metrics_by_folds_are_those_of_prompts_that_were_not_learned(kind: str, tmp_path: Path) -> None:
    """A coin for each prompt cannot be learned, so a router that is measured without a leak has an APGR about 1/2."""
    rng = np.random.default_rng(7)
    prompts = [" ".join(map(str, rng.integers(1000, 9999, 8))) for _ in range(120)]
    rows = [
        Outcome(prompt=spelling, scores={"big": coin, "small": 0.25})
        for prompt, coin in zip(prompts, coins(120, seed=8), strict=True)
        for spelling in (prompt, f"{prompt}!", f"  {prompt}", prompt)
    ]
    options = {"neighbors": 1} if kind == "knn" else {"l2": 1e-3}
    found = train_embedding_router(
        kind,  # type: ignore[arg-type]
        rows,
        tmp_path / kind,
        strong="big",
        weak="small",
        folds=5,
        draws=20,
        **options,
    )
    assert found.evaluation is not None
    assert abs(found.evaluation.metrics["apgr"].value - 0.5) < 0.15


def test_spellings_of_a_prompt_are_in_one_fold_and_one_part() -> None:
    split = Split(validation=0.3, held_out=0.3, seed=3)
    for i in range(50):
        spellings = (f"Prove that {i} is prime.", f"prove that {i} is prime", f"  PROVE that {i}\nis prime!")
        assert len({fold_of(text, 5, 3) for text in spellings}) == 1
        assert len({split.part(text) for text in spellings}) == 1
    folds = np.bincount([fold_of(f"prompt {i}", 5, 3) for i in range(2000)])
    assert len(folds) == 5
    assert folds.min() > 320
