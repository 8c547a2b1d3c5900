"""Training of the bert router: any encoder with a head of three labels, by transformers' Trainer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from routellm_core.errors import ConfigurationError
from routellm_core.routers.bert import BERTRouter
from routellm_core.training.finetune import LABEL_NAMES, Source, fine_tune_router, import_training, padded
from routellm_core.training.options import FineTuning, FineTuningOptions
from routellm_core.training.summary import TrainingSummary


def train_bert(
    source: Source,
    directory: str | Path,
    *,
    base: str | Path,
    strong: str | Collection[str],
    weak: str | Collection[str],
    max_length: int | None = None,
    **options: Unpack[FineTuningOptions],
) -> TrainingSummary | None:
    """Fine-tune an encoder to tell strong wins (label 0), tie (1) and weak wins (2) apart, and save it as a router.

    The win rate that the router will give is the probability of label 0. Training cuts and tokenises prompts as the
    router does when it serves. A run that was interrupted continues from its last checkpoint, with the order of the
    data and the state of the random numbers, when it is called again with the same arguments.

    Args:
        source: Called before each pass over the data; returns fresh iterators over battles or outcomes, such as
            ``lambda: read_preferences(path)``. Only the validation and held-out parts are kept in memory.
        directory: Where to save the router, with its calibration, metrics and model card.
        base: Directory or hub id of the encoder, with a fast tokenizer; only safetensors weights are opened.
        strong: The strong model, or several that stand for it (a tier); metrics are those of the first.
        weak: The weak model, or several.
        max_length: Longest prompt in tokens; None: 512, or the model's limit if that is lower.
        **options: See `FineTuningOptions`.

    Returns:
        The summary; None on every process but the first of a distributed run.

    Raises:
        MissingExtraError: torch, transformers or accelerate is not installed.
        ConfigurationError: An option is not allowed or does not exist, the directory holds a router, or `base` is not a
            usable encoder.
        DataError: No row compares the pair, or too few rows to split.
    """
    how = options.pop("how", None) or FineTuning()
    load = partial(_Encoder, base, max_length, how.batch_size)
    return fine_tune_router(
        "bert", load, source, directory, base=base, strong=strong, weak=weak, how=how, options=options
    )


class _Encoder:
    """The `Learner` of an encoder with a head of three labels."""

    settings: Mapping[str, Any] = {}

    def __init__(self, base: str | Path, max_length: int | None, batch_size: int) -> None:
        torch, transformers = import_training("Training the bert router")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(base))
            self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
                str(base),
                num_labels=len(LABEL_NAMES),
                id2label=LABEL_NAMES,
                label2id={name: i for i, name in LABEL_NAMES.items()},
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # a head of another task is replaced
            )
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"base={str(base)!r}: not a usable encoder: {exc}") from exc
        self._max_length, self._batch_size = max_length, batch_size
        self._reader = BERTRouter(self.model, self._tokenizer, max_length=max_length)  # cuts and tokenises prompts
        self.model.train().requires_grad_(True)

    def encode(self, prompts: list[str]) -> dict[str, Any]:
        return padded(self._reader.encode(prompts), self._tokenizer.pad_token_id, side="right")

    def targets(self, labels: Any) -> Any:
        return labels

    def logits(self, model: Any, batch: Mapping[str, Any]) -> Any:
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()

    def router(self, model: Any) -> BERTRouter:
        return BERTRouter(model, self._tokenizer, max_length=self._max_length, batch_size=self._batch_size)
