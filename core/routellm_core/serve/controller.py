"""`Controller` of the authors' package, for code that was written against it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from routellm_core.data.chats import content_text
from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.routers import load_router, router_class, router_names
from routellm_core.routers.base import Router

# what the authors' configs say of a router, and where `load_router` takes it
_CHECKPOINT = "checkpoint_path"


class _RouterClasses(Mapping[str, type[Router]]):
    """The classes of all routers by name; one is imported when it is asked for."""

    def __getitem__(self, name: str) -> type[Router]:
        if name not in router_names():
            raise KeyError(name)
        return router_class(name)

    def __iter__(self) -> Iterator[str]:
        return iter(router_names())

    def __len__(self) -> int:
        return len(router_names())


# the name that it has in the authors' package
ROUTER_CLS: Mapping[str, type[Router]] = _RouterClasses()


class RoutingError(ConfigurationError):
    """A router or threshold that the controller does not know; the name is that of the authors' package."""


@dataclass
class ModelPair:
    """The two models.

    Attributes:
        strong: Name of the strong model.
        weak: Name of the weak model.
    """

    strong: str
    weak: str


class Controller:
    """Routes calls of OpenAI's chat interface between two models, as the controller of the authors' package does.

    The differences: answers come through the ``openai`` client (extra ``openai``) from one OpenAI-compatible service,
    and not through litellm, so names of models are sent as they are; ``mf`` is the bundled router where `config` names
    no checkpoint; ``batch_calculate_win_rate`` takes any sequence of strings. Thresholds belong to a router: one that
    was calibrated for the authors' checkpoint sends another share with the bundled router.

    Attributes:
        model_pair: The two models.
        routers: The loaded routers by name.
        model_counts: How often each router sent a call to each model.
        chat: ``chat.completions.create`` and ``chat.completions.acreate``, as of the ``openai`` client.

    Args:
        routers: Names of routers, as of `load_router`.
        strong_model: Name of the strong model, as the service calls it.
        weak_model: Name of the weak model.
        config: Options of the routers by name, such as ``{"mf": {"checkpoint_path": "my-router"}}``.
        api_base: Base URL of the service; None takes the client's own default.
        api_key: Key of the service; None takes the client's own default, ``OPENAI_API_KEY``.
        progress_bar: Accepted, and without meaning: routers load in a moment.

    Raises:
        ConfigurationError: A router or an option of one does not exist.
        CheckpointNotFoundError: There is nothing at a ``checkpoint_path``.
    """

    def __init__(
        self,
        routers: Sequence[str],
        strong_model: str,
        weak_model: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        progress_bar: bool = False,
    ) -> None:
        self.model_pair = ModelPair(strong=strong_model, weak=weak_model)
        self.routers = {name: _loaded(name, (config or {}).get(name, {})) for name in routers}
        self.api_base = api_base
        self.api_key = api_key
        self.model_counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._counting = threading.Lock()
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.completion, acreate=self.acompletion))

    def batch_calculate_win_rate(self, prompts: Sequence[str], router: str) -> Any:
        """Win rates of prompts.

        Args:
            prompts: The prompts; a pandas Series gives a Series with its index.
            router: Name of one of the routers.

        Returns:
            float64 array (n,), or a Series.
        """
        found = self._router(router, 0.0)
        win_rates: npt.NDArray[np.float64] = found.win_rates([str(prompt) for prompt in prompts])
        index = getattr(prompts, "index", None)
        if index is None or callable(index):  # a list's `index` looks something up
            return win_rates
        return type(prompts)(win_rates, index=index)  # type: ignore[call-arg]

    def route(self, prompt: str, router: str, threshold: float) -> str:
        """The name of the model that a prompt goes to."""
        win_rate = self._router(router, threshold).win_rates([prompt])[0]
        return self.model_pair.strong if win_rate >= threshold else self.model_pair.weak

    def completion(self, *, router: str | None = None, threshold: float | None = None, **kwargs: Any) -> Any:
        """Route a chat completion on its last message, and return the answer.

        Args:
            router: Name of one of the routers; not needed where ``model="router-NAME-THRESHOLD"`` says it.
            threshold: The call is strong when its win rate is at least this number.
            **kwargs: As of ``chat.completions.create`` of the ``openai`` client.

        Raises:
            RoutingError: Router or threshold is missing or unknown.
            MissingExtraError: The ``openai`` client is not installed.
        """
        return self._client("OpenAI").chat.completions.create(**self._routed(router, threshold, kwargs))

    async def acompletion(self, *, router: str | None = None, threshold: float | None = None, **kwargs: Any) -> Any:
        """Async twin of `completion`."""
        async with self._client("AsyncOpenAI") as client:
            if kwargs.get("stream"):
                raise RoutingError("stream=True: stream through the server (routellm serve) or ChatRouteLLM instead")
            return await client.chat.completions.create(**self._routed(router, threshold, kwargs))

    def _routed(self, router: str | None, threshold: float | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        if "model" in kwargs:
            router, threshold = _parsed(kwargs["model"])
        if router is None or threshold is None:
            raise RoutingError('router= or threshold= is missing: give both, or model="router-mf-0.3"')
        model = self.route(_last_text(kwargs.get("messages")), router, threshold)
        with self._counting:
            self.model_counts[router][model] += 1
        return {**kwargs, "model": model}

    def _router(self, name: str, threshold: float) -> Router:
        if name not in self.routers:
            raise RoutingError(f"router={name!r:.80}: expected one of {', '.join(self.routers)}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise RoutingError(f"threshold={threshold!r:.80}: expected a number between 0 and 1")
        return self.routers[name]

    def _client(self, name: str) -> Any:
        try:
            import openai
        except ImportError:
            raise MissingExtraError("Controller.completion", "openai") from None
        return getattr(openai, name)(base_url=self.api_base, api_key=self.api_key)


def _loaded(name: str, options: Mapping[str, Any]) -> Router:
    rest = dict(options)
    return load_router(name, rest.pop(_CHECKPOINT, None), **rest)


def _parsed(model: str) -> tuple[str, float]:
    """Router and threshold of ``router-NAME-THRESHOLD``."""
    prefix, _, rest = model.partition("-")
    name, _, number = rest.rpartition("-")
    try:
        threshold = float(number)
    except ValueError:
        threshold = -1.0
    if prefix != "router" or not name or threshold < 0:
        raise RoutingError(f"model={model!r:.80}: expected router-NAME-THRESHOLD, such as router-mf-0.3")
    return name, threshold


def _last_text(messages: Any) -> str:
    """The text of the last message, which the authors' controller routes on."""
    last = messages[-1] if isinstance(messages, Sequence) and messages else None
    if not isinstance(last, Mapping):
        raise RoutingError("messages: expected a list of messages, each a dict with role and content")
    return content_text(last.get("content")) or ""
