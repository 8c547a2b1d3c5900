"""The options of the trainers: named, typed and described once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from routellm_core.checks import Progress, checked_count, is_number
from routellm_core.errors import ConfigurationError

if TYPE_CHECKING:
    from routellm_core.embedders.base import Embedder
    from routellm_core.evaluation.costs import Money


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned; the defaults of each trainer are the paper's.

    Attributes:
        epochs: Passes over the training rows, unless `max_steps` ends it before.
        max_steps: Most optimizer steps.
        batch_size: Rows of one forward pass on one device.
        accumulate: Forward passes of one optimizer step.
        learning_rate: Highest learning rate; it rises over the first tenth and falls to zero along a line.
        weight_decay: Decoupled weight decay.
        evaluations: How often, over the run, the validation loss is looked at and a checkpoint written.
        patience: Evaluations without a better validation loss before the run stops.
        gradient_checkpointing: Trade time for memory.
        bf16: Compute in bfloat16, with trained weights in float32. None: on a GPU that supports it. On a CPU it is
            faster if the processor has the instructions (AVX-512 BF16, AMX), and slower if not.
        seed: Seed of the order of rows, dropout and new weights.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    epochs: float = 3.0
    max_steps: int = 2_000
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    evaluations: int = 10
    patience: int = 3
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bf16 not in (None, True, False):
            raise ConfigurationError(
                f"bf16={self.bf16!r}: expected True, False, or None to use it on a GPU that supports it"
            )
        for name in ("max_steps", "batch_size", "accumulate", "evaluations", "patience"):
            checked_count(getattr(self, name), name)
        for name, least in (("epochs", 1e-9), ("learning_rate", 1e-12), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if not is_number(value) or value < least:
                raise ConfigurationError(f"{name}={value!r}: expected a positive number")

    def computes_in_bf16(self) -> bool:
        """Whether this machine is to compute in bfloat16."""
        import torch

        return torch.cuda.is_available() and torch.cuda.is_bf16_supported() if self.bf16 is None else self.bf16


class TrainingOptions(TypedDict, total=False):
    """Options of every trainer."""

    tie_margin: float
    """Scores that differ by no more than this are a tie, in the unit of the scores; 0 by default."""

    held_out: float
    """Share of the prompts that are held out for the metrics, 0.2 by default; 0 measures nothing."""

    source_weights: Mapping[str, float] | None
    """Factor on the weight of records by their source."""

    skipped: Callable[[], int]
    """Called at the end; returns how many malformed rows were left out, for the report."""

    overwrite: bool
    """Whether to replace a router that is there already."""

    draws: int
    """Bootstrap draws of the intervals, 1,000 by default."""

    money: Money | None
    """Prices, for the verdict; without them, costs and tokens of the records count where they are known."""

    command: str
    """The command line, for the report."""

    progress: Progress | None
    """Called with (prompts embedded, prompts in all), or (optimizer steps done, steps in all)."""


class EmbeddingRouterOptions(TrainingOptions, total=False):
    """Options of `train_embedding_router`."""

    embedder: Embedder | None
    """Maps prompts to vectors; None: the bundled one, which needs no key and no network."""

    all_models: bool | None
    """Whether to learn from the battles of every pair of models, and not of this pair alone; None: mf no, sw_ranking
    yes. (knn keeps all scores and votes by those of the pair.)"""

    folds: int
    """Measure by this many folds of cross-validation instead of holding prompts out, and train the saved router on
    everything: the choice for a few hundred rows, where every one counts. 0, the default, holds prompts out."""

    seed: int
    """Seed of the split, and of whatever is random in training; 0 by default."""

    method: Literal["auto", "pair", "sgd"]
    """For mf, see `fit_mf`. So are `l2` and the fields of `SGD`, which follow."""

    l2: float | None
    dim: int
    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float
    noise: float
    validation: float
    patience: int

    neighbors: int | None
    """For knn, see `fit_knn`."""

    num_tiers: int
    """For sw_ranking, see `SimilarityWeightedRouter`. So are `same_tier`, `dtype`, `base` and `nearest`."""

    same_tier: Literal["ignore", "routellm"]
    dtype: Literal["float32", "float16", "int8"]
    base: float
    nearest: int | None


class FineTuningOptions(TrainingOptions, total=False):
    """Options of `train_bert` and `train_causal_llm`."""

    how: FineTuning | None
    """Steps, sizes and rates; None: the paper's for this router."""

    balance: bool
    """Whether to weight the labels so that each has the same share of the loss, since ties are often rare or frequent;
    True by default."""

    validation: float
    """Share of the prompts for early stopping, by default 0.1; 0 trains to the end."""

    resume: bool
    """Whether to continue an interrupted run from its last checkpoint; True by default."""

    callbacks: Collection[Any]
    """Further callbacks of transformers' Trainer."""


_DEFAULTS: Final[TrainingOptions] = {
    "tie_margin": 0.0,
    "held_out": 0.2,
    "source_weights": None,
    "skipped": lambda: 0,
    "overwrite": False,
    "draws": 1000,
    "money": None,
    "command": "",
    "progress": None,
}
# The options that belong to one kind of router have their defaults where they are used.
EMBEDDING_DEFAULTS: Final[EmbeddingRouterOptions] = {
    **_DEFAULTS,  # type: ignore[typeddict-item]
    "embedder": None,
    "all_models": None,
    "folds": 0,
    "seed": 0,
}
FINE_TUNING_DEFAULTS: Final[FineTuningOptions] = {
    **_DEFAULTS,  # type: ignore[typeddict-item]
    "balance": True,
    "validation": 0.1,
    "resume": True,
    "callbacks": (),
}
