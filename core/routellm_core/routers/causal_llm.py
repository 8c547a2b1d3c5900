"""CausalLLMRouter: an LLM that rates, with one of five label tokens, how well the weak model would do."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import re
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import numpy as np

from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError
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

PromptFormat = Literal["llama3", "chat_template"]

LABELS = ("[[1]]", "[[2]]", "[[3]]", "[[4]]", "[[5]]")
# From this rating on, the weak model is good enough.
FIRST_WEAK_LABEL = 4
MAX_STEPS = 6
SYSTEM_FILE = "system_ft_v5.txt"
TEMPLATE_FILE = "classifier_ft_v5.txt"

_LLAMA3_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA3_TURN = "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"
# Placeholder for the prompt while a chat template is rendered: a private-use character, so it is in no template.
_PLACE = "\U0010fffdprompt\U0010fffd"


class RatingPrompt:
    """Turns a prompt into the token ids of the model's input; used by both training and routing.

    The ids are those of the whole text as the tokenizer sees it, with one exception: the prompt is always plain text. A
    label or an end-of-turn marker in it is split into ordinary tokens, never read as the special token.

    Args:
        tokenizer: A fast tokenizer; label tokens that it lacks are added to it.
        system: The system text.
        template: The user's turn, with one ``{question}``, in the syntax of `str.format`.
        prompt_format: "llama3" uses the headers that the published checkpoint was trained with, where the text ends
            after the user's turn; "chat_template" uses the tokenizer's own template with a generation prompt. None
            selects "llama3" for a tokenizer that has its header tokens, otherwise "chat_template".

    Attributes:
        label_ids: Token ids of [[1]] .. [[5]].
        head: Ids at the beginning of every prompt.
        tail: Ids at the end of every prompt.
        added: Number of label tokens that the tokenizer lacked.

    Raises:
        ConfigurationError: The template does not have exactly one ``{question}``, or the tokenizer does not fit the
            format.
    """

    def __init__(
        self, tokenizer: Any, *, system: str, template: str, prompt_format: PromptFormat | None = None
    ) -> None:
        self.system, self.template = system, template
        before, after = _around_question(template)
        known = tokenizer.get_vocab()
        if prompt_format is None:
            prompt_format = "llama3" if all(mark in known for mark in _LLAMA3_MARKS) else "chat_template"
        if prompt_format not in ("llama3", "chat_template"):
            raise ConfigurationError(f"prompt_format={prompt_format!r}: expected 'llama3' or 'chat_template'")
        self.prompt_format: PromptFormat = prompt_format
        lacking = [label for label in LABELS if label not in known]
        self.added = len(lacking)
        if lacking:
            tokenizer.add_tokens(lacking, special_tokens=True)
        self.label_ids: list[int] = tokenizer.convert_tokens_to_ids(list(LABELS))
        if prompt_format == "llama3":
            if not all(mark in known for mark in _LLAMA3_MARKS):
                raise ConfigurationError(
                    f"prompt_format='llama3', but the tokenizer lacks {', '.join(_LLAMA3_MARKS)}; use 'chat_template'"
                )
            lead = _LLAMA3_TURN.format(role="system", text=system.strip()) if system.strip() else ""
            user = (before + _PLACE + after).strip()
            rendered = lead + _LLAMA3_TURN.format(role="user", text=user)
        else:
            rendered = _rendered(tokenizer, system.strip(), (before + _PLACE + after).strip())
        head, _, tail = rendered.partition(_PLACE)
        # Special tokens always split the text, so the texts beyond them never merge with the prompt.
        specials = [str(token) for token in tokenizer.get_added_vocab()]
        marks = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))))
        ends = [match.end() for match in marks.finditer(head)]
        starts = [match.start() for match in marks.finditer(tail)]
        cut_head, cut_tail = (ends or [0])[-1], (starts or [len(tail)])[0]
        self._before, self._after = head[cut_head:], tail[:cut_tail]
        # A chat template writes its own beginning-of-text token; for the Llama 3 headers the tokenizer adds it.
        begins = prompt_format == "llama3"
        bare: list[int] = tokenizer.encode("", add_special_tokens=True) if begins else []
        self.head: list[int] = bare + tokenizer.encode(head[:cut_head], add_special_tokens=False)
        self.tail: list[int] = tokenizer.encode(tail[cut_tail:], add_special_tokens=False)
        self._plain = _plain_tokenizer(tokenizer)

    def encode(self, prompt: str, max_tokens: int | None = None) -> tuple[list[int], bool]:
        """Return the token ids of a prompt, and whether its end was cut off to stay within `max_tokens`."""
        # The tokenizer is written in Rust, whose strings cannot hold a lone surrogate.
        text = prompt.encode("utf-8", "replace").decode("utf-8")
        if not self._before.strip():
            text = text.lstrip()
        if not self._after.strip():
            text = text.rstrip()
        middle = self._ids(self._before + text + self._after)
        if max_tokens is None or len(self.head) + len(middle) + len(self.tail) <= max_tokens:
            return [*self.head, *middle, *self.tail], False
        after = self._ids(self._after)
        room = max(0, max_tokens - len(self.head) - len(after) - len(self.tail))
        return [*self.head, *middle[:room], *after, *self.tail], True

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids


class CausalLLMRouter(Router):
    """Win rate = 1 - (P[[4]] + P[[5]]) over the five labels, where the model first writes one (RouteLLM, section 4.2).

    The model decodes greedily, up to the first label and at most 6 tokens; without a label the win rate is 1.0. The
    common beginning of all prompts is computed once, and its key-value cache is copied for each prompt. Prompts run one
    at a time, so a batch gives exactly the same win rates as its prompts one by one.

    A prompt that exceeds `max_length` is cut off at its end; a warning is logged for the first one.

    Args:
        model: A transformers causal language model. It is resized if its embedding has no row for a label token.
        tokenizer: Its fast tokenizer; label tokens that it lacks are added to it.
        system: The system text.
        template: The user's turn, with ``{question}`` in place of the prompt.
        prompt_format: See `RatingPrompt`.
        device: The device to run on, for example "cuda"; None leaves the model where it is (`from_pretrained` loads it
            on the CPU).
        max_length: Maximum number of tokens of a whole text; None is the number of positions of the model.

    Raises:
        ConfigurationError: A value is not allowed.
        MissingExtraError: torch or transformers is not installed.
    """

    name = "causal_llm"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        system: str,
        template: str,
        prompt_format: PromptFormat | None = None,
        device: str | None = None,
        max_length: int | None = None,
    ) -> None:
        import_transformers(type(self).__name__)
        self.prompt = RatingPrompt(tokenizer, system=system, template=template, prompt_format=prompt_format)
        if max(self.prompt.label_ids) >= model.get_input_embeddings().num_embeddings:
            logger.warning(
                "the model has no rows for the label tokens %s: they are added, but have no meaning before training",
                ", ".join(LABELS),
            )
            model.resize_token_embeddings(max(self.prompt.label_ids) + 1)
        self.model, self.tokenizer = placed(model, device), tokenizer
        limit = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30) - MAX_STEPS
        shortest = len(self.prompt.encode("")[0])
        wanted = limit if max_length is None else max_length
        if isinstance(wanted, bool) or not isinstance(wanted, int) or not shortest < wanted <= limit:
            raise ConfigurationError(
                f"max_length={max_length!r}: expected more than the {shortest} tokens around a prompt, at most {limit}"
            )
        self.max_length = wanted
        self._stops = _stop_ids(model, tokenizer) - set(self.prompt.label_ids)
        # transformers 5.24 renamed the argument, model by model
        takes = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in takes else "past_key_values"
        self._prefix = self._common_prefix()
        self._prefix_cache = self._cached_prefix()
        self._warned = False

    def _win_rates(self, prompts: list[str]) -> WinRateArray:
        return np.array([self._win_rate(prompt) for prompt in prompts], dtype=np.float64)

    def _win_rate(self, prompt: str) -> float:
        import torch

        ids, cut = self.prompt.encode(prompt, self.max_length)
        if cut and not self._warned:
            self._warned = True
            logger.warning("only the beginning of a prompt of over %d tokens is read (logged once)", self.max_length)
        # A prompt may merge with the end of the common text into other tokens; the last token is always computed.
        shared = 0
        while shared < min(len(self._prefix), len(ids) - 1) and ids[shared] == self._prefix[shared]:
            shared += 1
        # Each call needs its own copy, because the model appends to it.
        cache = copy.deepcopy(self._prefix_cache)
        if shared < len(self._prefix):
            cache.crop(shared - len(self._prefix))  # negative: the number of tokens to remove; required since 5.24
        step = torch.tensor([ids[shared:]], device=self.model.device)
        labels = torch.tensor(self.prompt.label_ids)
        with torch.inference_mode():
            for _ in range(MAX_STEPS):
                logits = self._continued(step, cache)[0, -1].float()
                token = int(logits.argmax())
                if token in self.prompt.label_ids:
                    chances = torch.softmax(logits[labels.to(logits.device)].double(), dim=0)
                    weak = float(chances[FIRST_WEAK_LABEL - 1 :].sum())
                    return min(1.0, max(0.0, 1.0 - weak))
                if token in self._stops:
                    break
                step = torch.tensor([[token]], device=self.model.device)
        return 1.0

    def _common_prefix(self) -> list[int]:
        """Ids at the beginning of nearly every text: the head and the start of the template."""
        texts = [self.prompt.encode(text)[0] for text in ("a", "Z", "1", "(", " ", "\n", "é", "本")]
        prefix = min(texts, key=len)[:-1]
        for ids in texts:
            same = 0
            while same < len(prefix) and same < len(ids) and prefix[same] == ids[same]:
                same += 1
            prefix = prefix[:same]
        return prefix

    def _cached_prefix(self) -> Any:
        import torch
        from transformers import DynamicCache

        torch_computes()
        cache = DynamicCache(config=self.model.config)
        if self._prefix:
            with torch.inference_mode():
                self._continued(torch.tensor([self._prefix], device=self.model.device), cache)
        return cache

    def _continued(self, ids: Any, cache: Any) -> Any:
        """Return the logits after the last of `ids`, which continue the text in `cache` and are added to it."""
        return self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self._cache_argument: cache}).logits

    @cached_property
    def _digest(self) -> str:
        return model_digest(self.model, self.tokenizer)

    def _fingerprint_parts(self) -> dict[str, Any]:
        return {
            "router": self.name,
            "model": self._digest,
            "system": self.prompt.system,
            "template": self.prompt.template,
            "prompt_format": self.prompt.prompt_format,
            "max_length": self.max_length,
        }

    def _save(self, path: Path) -> dict[str, Any]:
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        (path / SYSTEM_FILE).write_text(self.prompt.system, encoding="utf-8")
        (path / TEMPLATE_FILE).write_text(self.prompt.template, encoding="utf-8")
        # config.json remains the model's own, as in published checkpoints, with our settings added.
        own = {
            "prompt_format": self.prompt.prompt_format,
            "max_length": self.max_length,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }
        return {**saved_config(path), "routellm": own}

    @classmethod
    def _load(  # type: ignore[override]  # each router has options of its own; from_pretrained checks them
        cls,
        path: Path,
        config: dict[str, Any],
        *,
        system: str | None = None,
        template: str | None = None,
        prompt_format: PromptFormat | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
    ) -> CausalLLMRouter:
        transformers = import_transformers(cls.__name__)
        own = config.get("routellm") or {}
        system = _text(path / SYSTEM_FILE, "system") if system is None else system
        template = _text(path / TEMPLATE_FILE, "template") if template is None else template
        tokenizer = load_tokenizer(transformers, path)
        model = load_model(transformers.AutoModelForCausalLM, path, dtype or own.get("dtype", "bfloat16"), device)
        return cls(
            model,
            tokenizer,
            system=system,
            template=template,
            prompt_format=prompt_format or own.get("prompt_format"),
            max_length=max_length or own.get("max_length"),
        )


def _text(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointNotFoundError(
            f"no {file.name} in {str(file.parent)!r}, where a causal_llm checkpoint has it; otherwise pass {option}="
        ) from None
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{file} cannot be read as UTF-8 text: {exc}") from exc


def _around_question(template: str) -> tuple[str, str]:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as exc:
        raise ConfigurationError(f"template is not in the syntax of str.format: {exc}") from exc
    fields = [field for _, field, _, _ in pieces if field is not None]
    if fields != ["question"]:
        raise ConfigurationError(f"template has the fields {fields}: expected one {{question}}; write {{{{ for a brace")
    at = next(i for i, piece in enumerate(pieces) if piece[1] is not None)
    return "".join(p[0] for p in pieces[: at + 1]), "".join(p[0] for p in pieces[at + 1 :])


def _rendered(tokenizer: Any, system: str, user: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError(
            "tokenizer has neither the Llama 3 header tokens nor a chat template: set tokenizer.chat_template"
        )
    separate = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    # Some templates have no system turn; they reject it, or drop it silently.
    joined = [{"role": "user", "content": f"{system}\n\n{user}".strip()}]
    for messages in (separate, joined) if system else (joined,):
        try:
            text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as exc:  # a template may raise anything
            failure = f"{type(exc).__name__}: {exc}"
            continue
        if text.count(_PLACE) == 1 and system in text:
            return text
        failure = "it does not render both texts"
    raise ConfigurationError(f"the tokenizer's chat template cannot be used: {failure}")


def _plain_tokenizer(tokenizer: Any) -> Any:
    """Return a copy of the tokenizer that treats every special token and label as plain text."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["content"] in LABELS
    state["truncation"] = state["padding"] = None
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True
    return plain


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """End-of-text tokens, after which no label can follow."""
    stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = stops if isinstance(stops, list) else [stops]
    return {int(stop) for stop in [*listed, tokenizer.eos_token_id] if stop is not None}
