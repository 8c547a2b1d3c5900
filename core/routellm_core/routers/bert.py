"""BERTRouter: a sequence classifier over (strong wins, tie, weak wins)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from routellm_core.errors import CheckpointError, ConfigurationError
from routellm_core.forks import torch_computes
from routellm_core.routers.base import Router, WinRateArray
from routellm_core.routers.transformers_checkpoint import (
    import_transformers,
    load_model,
    load_tokenizer,
    model_digest,
    placed,
    saved_config,
)

logger = logging.getLogger(__name__)

# Order of the labels in the published checkpoint, whose config does not name them.
LABELS = ("strong wins", "tie", "weak wins")
DEFAULT_MAX_LENGTH = 512
# On a CPU the activations of a pass should stay in cache; on a GPU, larger passes are faster.
_CPU_PASS_TOKENS = 2048
# Longest over shortest prompt of a pass; beyond this ratio, padding costs more than a second pass.
_SLACK = 1.15


class BERTRouter(Router):
    """Win rate = softmax(logits)[0] of a classifier over strong wins, tie, weak wins (RouteLLM, section 4.2).

    A batch is sorted by length and padded within buckets of similar length, so a short prompt is not padded to the
    length of the longest. Padding is masked, but it changes the order of floating-point sums: a win rate in a batch
    equals that of the prompt alone to 1e-6 in float32, not bit for bit.

    Of a prompt with more than `max_length` tokens, only the beginning is read; a warning is logged for the first one.

    Args:
        model: A transformers sequence classifier with 3 labels in the published order.
        tokenizer: Its fast tokenizer.
        device: The device to run on, for example "cuda"; None leaves the model where it is (`from_pretrained` loads it
            on the CPU).
        max_length: Maximum number of tokens of a prompt, including special tokens; None is 512, or the model's limit if
            that is lower.
        batch_size: Maximum number of prompts per pass; on a CPU, a pass also has at most 2,048 tokens.

    Raises:
        ConfigurationError: A value is not allowed, or the model does not have 3 labels.
        MissingExtraError: torch or transformers is not installed.
    """

    name = "bert"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        device: str | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
    ) -> None:
        import_transformers(type(self).__name__)
        labels = getattr(getattr(model, "config", None), "num_labels", None)
        if labels != len(LABELS):
            raise ConfigurationError(
                f"model has num_labels={labels}: expected a classifier with 3 labels ({', '.join(LABELS)})"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size!r}: expected an int >= 1")
        if tokenizer.pad_token_id is None:
            raise ConfigurationError(
                "tokenizer has no padding token: pass the one that the classifier was trained with"
            )
        least, limit = tokenizer.num_special_tokens_to_add() + 1, _longest(model.config, tokenizer)
        wanted = min(DEFAULT_MAX_LENGTH, limit) if max_length is None else max_length
        if isinstance(wanted, bool) or not isinstance(wanted, int) or not least <= wanted <= limit:
            raise ConfigurationError(f"max_length={max_length!r}: expected {least} to {limit}, the model's limit")
        self.model, self.tokenizer = placed(model, device), tokenizer
        self.max_length, self.batch_size = wanted, batch_size
        self._warned = False

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        import torch

        torch_computes()
        rows = self.encode(prompts)
        device = self.model.device
        out = np.empty(len(rows), dtype=np.float64)
        for bucket in self._buckets([len(row) for row in rows]):
            width = len(rows[bucket[-1]])
            ids = torch.full((len(bucket), width), self.tokenizer.pad_token_id, dtype=torch.long)
            mask = torch.zeros((len(bucket), width), dtype=torch.long)
            for row, i in enumerate(bucket):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
                mask[row, : len(rows[i])] = 1
            with torch.inference_mode():
                logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            out[bucket] = torch.softmax(logits.double().cpu(), dim=1)[:, 0].numpy()
        return out

    def _buckets(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield the indices of the prompts of each pass, which are similar in length, shortest first."""
        tokens = _CPU_PASS_TOKENS if self.model.device.type == "cpu" else 1 << 30
        bucket: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__):
            if bucket and (
                len(bucket) == self.batch_size
                or lengths[i] * (len(bucket) + 1) > tokens
                or lengths[i] > _SLACK * lengths[bucket[0]] + 4
            ):
                yield bucket
                bucket = []
            bucket.append(i)
        yield bucket

    def encode(self, prompts: list[str]) -> list[list[int]]:
        """Return the token ids of prompts as the model's input, each cut to `max_length`; also used by training."""
        # The tokenizer is written in Rust, whose strings cannot hold a lone surrogate.
        texts = [prompt.encode("utf-8", "replace").decode("utf-8") for prompt in prompts]
        # Truncated here, not by the tokenizer, whose truncation is a setting that threads share.
        coded = self.tokenizer(texts, truncation=False, padding=False, return_special_tokens_mask=True, verbose=False)
        rows = []
        for ids, special in zip(coded["input_ids"], coded["special_tokens_mask"], strict=True):
            if len(ids) > self.max_length:
                # Keep the special tokens around the prompt, and the first tokens of the prompt itself.
                room = self.max_length - sum(special)
                text = [i for i, is_special in enumerate(special) if not is_special]
                dropped = set(text[room:])
                ids = [token for i, token in enumerate(ids) if i not in dropped]
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "only the beginning of a prompt of over %d tokens is read (logged once)", self.max_length
                    )
            rows.append(ids)
        return rows

    @cached_property
    def _digest(self) -> str:
        return model_digest(self.model, self.tokenizer)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {"router": self.name, "model": self._digest, "max_length": self.max_length}

    def _save(self, path: Path) -> dict[str, Any]:
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        # config.json remains the model's own, as in published checkpoints, with our settings added.
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {**saved_config(path), "routellm": {"max_length": self.max_length, "dtype": dtype}}

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
    ) -> BERTRouter:
        transformers = import_transformers(cls.__name__)
        labels = config.get("num_labels", len(config.get("id2label", (0, 1))))
        if labels != len(LABELS):
            raise CheckpointError(
                f"{path} holds a classifier with {labels} labels; expected 3: {', '.join(LABELS)}, in this order"
            )
        own = config.get("routellm") or {}
        model = load_model(
            transformers.AutoModelForSequenceClassification, path, dtype or own.get("dtype", "float32"), device
        )
        return cls(
            model,
            load_tokenizer(transformers, path),
            max_length=max_length or own.get("max_length"),
            batch_size=batch_size,
        )


def _longest(config: Any, tokenizer: Any) -> int:
    """The maximum number of tokens that the model has positions for."""
    positions = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    if "roberta" in str(getattr(config, "model_type", "")):
        # Positions of this family start after the padding index.
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
