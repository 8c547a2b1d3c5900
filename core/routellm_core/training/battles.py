"""Battles for training: those that records contain, as records and as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.data.convert import outcomes_to_battles
from routellm_core.data.records import Battle, Record
from routellm_core.errors import ConfigurationError, DataError

LABELS = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}


@dataclass(frozen=True)
class BattleArrays:
    """Battles as arrays: on prompt ``prompt[i]``, model ``model_a[i]`` beat ``model_b[i]`` with label ``label[i]``.

    Attributes:
        prompt: int (n,), row of the embeddings.
        model_a: int (n,), position in the list of models.
        model_b: int (n,), position of the other model; not the same as `model_a`.
        label: float (n,) in [0, 1]: 1 where a won, 0 where b won, 0.5 for a tie; any number between is a soft label.
        weight: float (n,), >= 0, not all 0; None weighs all alike.

    Raises:
        DataError: The arrays differ in length or are empty, or a value is out of its range; the message names the row.
    """

    prompt: npt.ArrayLike
    model_a: npt.ArrayLike
    model_b: npt.ArrayLike
    label: npt.ArrayLike
    weight: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in ("prompt", "model_a", "model_b"):
            raw = np.asarray(getattr(self, name))
            if raw.ndim != 1 or (raw.size and not np.issubdtype(raw.dtype, np.integer)):
                raise DataError(f"{name}: expected whole numbers of shape (n,), got {raw.dtype} of shape {raw.shape}")
            arrays[name] = raw.astype(np.int64)
        arrays["label"] = np.asarray(self.label, dtype=np.float64)
        weight = np.ones(arrays["label"].shape) if self.weight is None else self.weight
        arrays["weight"] = np.asarray(weight, dtype=np.float64)
        shapes = {name: array.shape for name, array in arrays.items()}
        if len(set(shapes.values())) != 1 or len(shapes["label"]) != 1 or not arrays["label"].size:
            raise DataError(f"battles: expected arrays of one shape (n,) with n >= 1, got {shapes}")
        checks = {
            "prompt": (arrays["prompt"] < 0, "a row number >= 0"),
            "model_a": (
                (arrays["model_a"] < 0) | (arrays["model_a"] == arrays["model_b"]),
                "a model other than model_b",
            ),
            "model_b": (arrays["model_b"] < 0, "a model's position >= 0"),
            "label": (~((arrays["label"] >= 0) & (arrays["label"] <= 1)), "a number in [0, 1]"),
            "weight": (~((arrays["weight"] >= 0) & np.isfinite(arrays["weight"])), "a finite number >= 0"),
        }
        for name, (bad, wanted) in checks.items():
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise DataError(f"battles: {name}[{row}]={arrays[name][row]}: expected {wanted}")
        if not arrays["weight"].any():
            raise DataError("battles: all weights are 0; give at least one battle a weight")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)


def battles_of(
    records: Sequence[Record], *, strong: str, weak: str, tie_margin: float, every_pair: bool
) -> list[Battle]:
    """The battles that records contain.

    Args:
        records: Outcomes, battles, or both.
        strong: The strong model.
        weak: The weak model.
        tie_margin: Scores that differ by no more than this are a tie.
        every_pair: Whether battles between any two models count, and not only those of the pair.

    Raises:
        ConfigurationError: There is no such battle.
    """
    pair = None if every_pair else (strong, weak)
    battles = list(outcomes_to_battles(records, pair=pair, tie_margin=tie_margin))
    if not battles:
        raise ConfigurationError(f"no training row compares {strong!r} with {weak!r}; hold fewer prompts out")
    return battles
