"""A side of a routed model: what may be used as one, and what is known about it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_openai_tool

from routellm_core.checks import Side
from routellm_core.errors import ConfigurationError, MissingExtraError
from routellm_core.policy.capability import STRUCTURED_OUTPUT, TOOL_CALLING
from routellm_core.policy.routing import Routing
from routellm_core.policy.setups import Setup
from routellm_core.policy.tiers import abilities_of_either

# providers whose clients pass any argument of bind_tools on, and whose APIs then refuse the call
_REFUSE_OTHER_TOOL_OPTIONS = frozenset({"ollama", "google_genai", "google_vertexai"})

# where the chat models of the providers keep the address of their server
_URL_FIELDS = ("openai_api_base", "base_url", "anthropic_api_url", "azure_endpoint", "endpoint")


def checked_chat_side(value: Any, parameter: str) -> Runnable[Any, Any]:
    """A chat model, one with arguments bound or a retry around it, or a string for `init_chat_model`."""
    if isinstance(value, str):
        try:
            from langchain.chat_models import init_chat_model
        except ImportError:
            raise MissingExtraError(f"{parameter}={value!r}: a model given by name", "agents") from None
        return cast("Runnable[Any, Any]", init_chat_model(value))
    if isinstance(value, Runnable) and chat_model_of(value) is not None:
        return value
    raise ConfigurationError(
        f"{parameter}={value!r:.80}: expected a chat model, such as ChatOpenAI(...), or its name, such as "
        "'openai:gpt-4.1'; for chains and other runnables use RouteLLMRunnable"
    )


def checked_side(value: Any, parameter: str) -> Runnable[Any, Any]:
    """Any runnable, or what LangChain makes one of: a function, a dict of runnables."""
    try:
        return cast("Runnable[Any, Any]", coerce_to_runnable(value))
    except TypeError:
        raise ConfigurationError(f"{parameter}={value!r:.80}: expected a runnable, a function or a dict") from None


def chat_model_of(runnable: Any) -> Any:
    """The chat model inside bindings, retries, fallbacks and configurable models; None when there is none.

    Of a configurable model it is the default. A model that is configured at run time (``init_chat_model`` without a
    name) counts as one.
    """
    while not isinstance(runnable, BaseChatModel):
        inner = _wrapped(runnable)
        if inner is None:
            return runnable if hasattr(type(runnable), "bind_tools") else None
        runnable = inner
    return runnable


def _wrapped(runnable: Any) -> Any:
    """What a binding, a retry, fallbacks or a configurable runnable has inside; None of anything else."""
    if isinstance(runnable, RunnableBindingBase):
        return runnable.bound
    if _is_configurable(runnable):
        return runnable.default
    return runnable.runnable if isinstance(runnable, RunnableWithFallbacks) else None


def _is_configurable(runnable: Any) -> bool:
    """Whether the settings of each call make the model: `configurable_fields` and `configurable_alternatives`."""
    # LangChain loads this module when such a model is made, which takes as long as loading most of this package
    module = sys.modules.get("langchain_core.runnables.configurable")
    return module is not None and isinstance(runnable, module.DynamicRunnable)


def routed_in(runnable: Any) -> Any:
    """The routed model that a side is, inside bindings, retries, fallbacks and configurable models; else None."""
    while runnable is not None and not hasattr(type(runnable), "_as_level"):
        runnable = _wrapped(runnable)
    return runnable


def as_level(runnable: Any, side: Side, above: Routing) -> Any:
    """A copy of a side whose routed model is a level of `above`'s; the user's own model is not changed."""
    return replaced_model(
        runnable, lambda model: model._as_level(above, side) if hasattr(type(model), "_as_level") else model
    )


def leaf_of(runnable: Any, decision: Any) -> Any:
    """The side that answered in the end, by the decisions of the routed models in `runnable`, outermost first."""
    while (routed := routed_in(runnable)) is not None and isinstance(decision, Mapping):
        runnable = routed.strong if decision.get("model") == "strong" else routed.weak
        decision = decision.get("inner")
    return runnable


def bound_kwargs(runnable: Any) -> dict[str, Any]:
    """Call arguments bound to a chat model, outermost winning."""
    kwargs: dict[str, Any] = {}
    while isinstance(runnable, RunnableBindingBase):
        kwargs = {**runnable.kwargs, **kwargs}
        runnable = runnable.bound
    return kwargs


def replaced_model(runnable: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a side with its chat model changed inside bindings, retries, fallbacks and configurable models.

    LangChain's own way (``model.bind(temperature=0).bind_tools(tools)``) would drop what was bound before, and
    ``model.configurable_fields(...).bind_tools(tools)`` would ignore the settings of later calls.
    """
    if isinstance(runnable, RunnableBindingBase):
        bound = replaced_model(runnable.bound, change)
        newer = bound_kwargs(bound)
        kwargs = {name: value for name, value in runnable.kwargs.items() if name not in newer}
        return runnable.model_copy(update={"bound": bound, "kwargs": kwargs})
    if isinstance(runnable, RunnableWithFallbacks):
        update = {
            "runnable": replaced_model(runnable.runnable, change),
            "fallbacks": [replaced_model(fallback, change) for fallback in runnable.fallbacks],
        }
        return runnable.model_copy(update=update)
    if _is_configurable(runnable):
        from langchain_routellm.configured import ChangedWhenConfigured

        default = replaced_model(runnable.default, change)
        changed = partial(replaced_model, change=change)
        return ChangedWhenConfigured(default=default, configurable_model=runnable, changed=changed)
    if isinstance(runnable, RunnableSequence):  # a model with its parser
        return RunnableSequence(replaced_model(runnable.first, change), *runnable.middle, runnable.last)
    if isinstance(runnable, RunnableParallel) and "raw" in runnable.steps__:  # include_raw=True
        steps = {**runnable.steps__, "raw": replaced_model(runnable.steps__["raw"], change)}
        return RunnableParallel(steps)
    return change(runnable)


def generating(runnable: Any) -> Runnable[Any, Any]:
    """A side whose calls go to its chat model's `generate`, through the same retries and fallbacks as `invoke`."""
    return cast("Runnable[Any, Any]", replaced_model(runnable, _Generating))


class _Generating(Runnable[Any, Any]):
    """Calls a chat model's `generate` with one list of messages."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> LLMResult:
        return cast("LLMResult", self._model.generate([input], **_generate_arguments(config), **kwargs))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> LLMResult:
        return cast("LLMResult", await self._model.agenerate([input], **_generate_arguments(config), **kwargs))


def _generate_arguments(config: RunnableConfig | None) -> dict[str, Any]:
    config = ensure_config(config)
    return {name: config.get(name) for name in ("callbacks", "tags", "metadata")}


def with_fields(runnable: Any, fields: Mapping[str, Any]) -> Any:
    """A copy of a side whose chat model has these fields set."""
    return replaced_model(
        runnable, lambda model: model.model_copy(update=dict(fields)) if isinstance(model, BaseChatModel) else model
    )


def options_taken(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of tools that a model's provider takes; those that it would refuse are left out."""
    if provider_of(model) not in _REFUSE_OTHER_TOOL_OPTIONS:
        return dict(options)
    named = inspect.signature(model.bind_tools).parameters
    return {name: value for name, value in options.items() if name in named}


def with_tools(model: Any, tools: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
    """A model with tools bound by its own `bind_tools`.

    Raises:
        TypeError: One is a tool that another provider runs itself. Some clients take it for a function without
            parameters, which nobody would ever answer; others send it and are refused.
    """
    bound = model.bind_tools(tools, **arguments)
    taken = bound_kwargs(bound).get("tools")
    provider = provider_of(model)
    for tool in tools:
        if not _runs_at_its_provider(tool) or not isinstance(taken, list):
            continue
        if tool not in taken or provider in _REFUSE_OTHER_TOOL_OPTIONS:
            raise TypeError(f"{tool['type']!r} is not a tool that {provider} runs")
    return bound


def _runs_at_its_provider(tool: Any) -> bool:
    if not isinstance(tool, Mapping) or not tool.keys().isdisjoint({"function", "input_schema", "parameters"}):
        return False
    return tool.get("type") not in (None, "function", "custom", "object")


def shown_tools(tools: Sequence[Any]) -> list[Any]:
    """Tools as schemas in OpenAI's form, which agents read; schemas in a provider's own form are left unchanged."""
    return [tool if isinstance(tool, Mapping) else convert_to_openai_tool(tool) for tool in tools]


def structured_output_need(side: Any) -> tuple[str, ...]:
    """What structured output asks of a side's model, read off what its own `with_structured_output` made.

    Models differ in how they do it by default; many call a tool, which more models can do than fill a schema.
    """
    kwargs: dict[str, Any] = {}
    while True:
        if isinstance(side, RunnableBindingBase):
            kwargs = {**side.kwargs, **kwargs}
            side = side.bound
        elif isinstance(side, RunnableWithFallbacks):
            side = side.runnable
        elif _is_configurable(side):
            side = side.default
        elif isinstance(side, RunnableSequence):
            side = side.first
        elif isinstance(side, RunnableParallel) and "raw" in side.steps__:  # include_raw=True
            side = side.steps__["raw"]
        elif isinstance(getattr(side, "weak", None), Runnable) and not isinstance(side, BaseChatModel):
            side = side.weak  # a routed model in the place of the weak one
        else:
            break
    stated = (kwargs.get("ls_structured_output_format") or {}).get("kwargs") or {}
    method = stated.get("method") or ("function_calling" if kwargs.get("tools") else "json_schema")
    return {"function_calling": (TOOL_CALLING,), "json_mode": ()}.get(method, (STRUCTURED_OUTPUT,))


def profiled_model_of(runnable: Any) -> Any:
    """The chat model of a side whose profile counts: the first one of a chain; None when there is none."""
    return chat_model_of(runnable.first if isinstance(runnable, RunnableSequence) else runnable)


def profile_of(runnable: Any) -> dict[str, Any] | None:
    """The model profile of a side; None if it has no profile."""
    profile = getattr(profiled_model_of(runnable), "profile", None)
    return dict(profile) if isinstance(profile, Mapping) else None


def abilities_of(runnable: Any) -> dict[str, Any] | None:
    """What a side can do; a routed model can do what either of its sides can, since it picks the one that fits."""
    routed = routed_in(runnable)
    if routed is None:
        return profile_of(runnable)
    weak = {**(abilities_of(routed.weak) or {}), **routed._routing.weak_profile}
    return abilities_of_either(abilities_of(routed.strong), weak) or None


def provider_of(runnable: Any) -> str | None:
    """The provider of a side's chat model, as traces name it; None when unknown."""
    model = chat_model_of(runnable)
    return model._get_ls_params().get("ls_provider") if isinstance(model, BaseChatModel) else None


def model_name_of(runnable: Any) -> str:
    """The provider's name of a side's model, or its class."""
    model = chat_model_of(runnable)
    for attribute in ("model", "model_name", "model_id", "deployment_name"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__


def setup_of(runnable: Any) -> Setup | None:
    """How a side is set up; None where it may be answered by other models than the one that is found in it."""
    around: list[Any] = []
    while not isinstance(runnable, BaseChatModel):
        if isinstance(runnable, RunnableBindingBase):
            around.append(runnable.kwargs)
            runnable = runnable.bound
        elif isinstance(runnable, RunnableSequence):  # a prompt, the model, a parser
            models = [step for step in runnable.steps if chat_model_of(step) is not None]
            if len(models) != 1:
                return None
            around.append([step for step in runnable.steps if step is not models[0]])
            runnable = models[0]
        else:
            return None
    url = next((u for name in _URL_FIELDS if isinstance(u := getattr(runnable, name, None), str) and u), None)
    # not every provider's class has these for a model that a test or a user has made
    identity = getattr(runnable, "_identifying_params", None)
    return Setup(model_name_of(runnable), url, (type(runnable), identity, around))


def model_name_on(message: BaseMessage) -> str | None:
    """The name of the model that answered, as its provider states it."""
    name = message.response_metadata.get("model_name") or message.response_metadata.get("model")
    return name if isinstance(name, str) else None
