"""The prompts of a traffic log as a learner needs them: by text, or without one, by what the log has in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from routellm_core.embedders.base import checked_embeddings
from routellm_core.log.rows import LoggedCall
from routellm_core.log.vectors import is_same_embedder, probe
from routellm_core.routers.base import Router
from routellm_core.routers.corrected import logits
from routellm_core.training.correction import correction_embedder, logits_in_use
from routellm_core.training.logistic import Floats


class LoggedPrompts:
    """What is known of logged prompts: their vectors, and what the router in use makes of them.

    A log with ``texts="none"`` and an embedder keeps a prompt's hash, vector and win rate. That is enough to correct
    the router that gave the win rate, where the log's embedder is the one that the correction is learned on.

    Args:
        router: The router in use.
        version: How the log names it.
        embedder: State of the log that says whose its vectors are; None for a log without vectors.
    """

    def __init__(self, router: Router, version: str, embedder: Mapping[str, Any] | None) -> None:
        self._router, self._version = router, version
        self.embedder = correction_embedder(router)
        self._since = np.inf
        if embedder is not None and is_same_embedder(probe(self.embedder), embedder["sample"]):
            self._since = float(embedder["since"])
        self._stored: dict[str, tuple[Floats, float]] = {}

    def name(self, call: LoggedCall) -> str | None:
        """The text of a call's prompt, else a name that stands for it; None for a call without a prompt."""
        if call.prompt is not None or call.prompt_hash is None:
            return call.prompt
        return f"prompt {call.prompt_hash}"

    def usable(self, call: LoggedCall) -> str | None:
        """The name of a call's prompt where the log holds enough of it to learn from; else None."""
        name = self.name(call)
        if name is None or call.prompt is not None:
            return name
        if call.vector is None or call.win_rate is None:
            return None
        if call.router != self._version or call.created < self._since:
            return None
        self._stored[name] = np.asarray(call.vector, dtype=np.float64), call.win_rate
        return name

    def all_texts(self, names: Sequence[str]) -> bool:
        """Whether none of these names stands for a text that is not stored."""
        return self._stored.keys().isdisjoint(names)

    def embed(self, names: Sequence[str]) -> Floats:
        """Vectors (n, d) of prompts by name."""
        texts = [name for name in names if name not in self._stored]
        found = {name: vector for name, (vector, _) in self._stored.items()}
        if texts:
            source = type(self.embedder).__name__
            found |= zip(texts, checked_embeddings(self.embedder.embed(texts), len(texts), None, source), strict=True)
        return np.array([found[name] for name in names], dtype=np.float64)

    def logits_in_use(self, names: Sequence[str], vectors: Floats) -> Floats:
        """Logits (n,) of the router in use; `vectors` are those of `embed`."""
        rates = [self._stored[name][1] if name in self._stored else np.nan for name in names]
        out = logits(np.array(rates, dtype=np.float64))
        texts = np.isnan(out)
        if texts.any():
            of_texts = [name for name, is_text in zip(names, texts, strict=True) if is_text]
            out[texts] = logits_in_use(self._router, of_texts, vectors[texts])
        return out
