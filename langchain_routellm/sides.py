"""A side of a routed model: what may stand there, and what can be read off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable

from routellm_core.errors import ConfigurationError, MissingExtraError


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
    """The chat model inside bindings, retries and fallbacks; None when there is none.

    A model that is configured at run time (``init_chat_model`` without a name) counts as one.
    """
    while not isinstance(runnable, BaseChatModel):
        if isinstance(runnable, RunnableBindingBase):
            runnable = runnable.bound
        elif isinstance(runnable, RunnableWithFallbacks):
            runnable = runnable.runnable
        elif hasattr(type(runnable), "bind_tools"):
            return runnable
        else:
            return None
    return runnable


def bound_kwargs(runnable: Any) -> dict[str, Any]:
    """Call arguments bound to a chat model, outermost winning."""
    kwargs: dict[str, Any] = {}
    while isinstance(runnable, RunnableBindingBase):
        kwargs = {**runnable.kwargs, **kwargs}
        runnable = runnable.bound
    return kwargs


def replaced_model(runnable: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a side with its chat model changed inside bindings, retries and fallbacks; the given one stays.

    LangChain's own way (``model.bind(temperature=0).bind_tools(tools)``) would drop what was bound before.
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
    return change(runnable)


def with_fields(runnable: Any, fields: Mapping[str, Any]) -> Any:
    """A copy of a side whose chat model has these fields set."""
    return replaced_model(
        runnable, lambda model: model.model_copy(update=dict(fields)) if isinstance(model, BaseChatModel) else model
    )


def profile_of(runnable: Any) -> dict[str, Any] | None:
    """The model profile of a side; None when it states none."""
    if isinstance(runnable, RunnableSequence):
        runnable = runnable.first
    profile = getattr(chat_model_of(runnable), "profile", None)
    return dict(profile) if isinstance(profile, Mapping) else None


def model_name_of(runnable: Any) -> str:
    """The provider's name of a side's model, or its class."""
    model = chat_model_of(runnable)
    for attribute in ("model", "model_name", "model_id", "deployment_name"):
        name = getattr(model, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(model).__name__
