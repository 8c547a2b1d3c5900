"""The options that both wrappers take, checked once; and what can be read off a side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Self, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase, coerce_to_runnable
from pydantic import BaseModel, ConfigDict, SkipValidation

from langchain_routellm.dispatch import Dispatch
from langchain_routellm.messages import checked_lookback, checked_route_on
from routellm_core import Calibration, Router, RoutingPolicy, Stickiness
from routellm_core.errors import ConfigurationError, MissingExtraError

_POLICY_OPTIONS = frozenset({"policy", "router", "calibration", "threshold", "strong_fraction"})


class RoutingOptions(BaseModel):
    """Fields of a routed runnable beyond its two sides; a mixin of `ChatRouteLLM` and `RouteLLMRunnable`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    # not validated by pydantic: it would turn the text "0.5" into a number, and wrap the errors of the policy
    policy: SkipValidation[RoutingPolicy | None] = None
    router: SkipValidation[Router | str | None] = None
    calibration: SkipValidation[Calibration | None] = None
    threshold: SkipValidation[float | None] = None
    strong_fraction: SkipValidation[float | None] = None
    failover: SkipValidation[bool] = False
    lookback: SkipValidation[int] = 1
    route_on: Any = None
    sticky: SkipValidation[Stickiness | None] = None

    @cached_property
    def _policy(self) -> RoutingPolicy:
        return RoutingPolicy.of(
            self.policy,
            router=self.router,
            calibration=self.calibration,
            threshold=self.threshold,
            strong_fraction=self.strong_fraction,
        )

    @cached_property
    def _dispatch(self) -> Dispatch:
        return self._new_dispatch()

    @property
    def routing_policy(self) -> RoutingPolicy:
        """The policy in force: `policy`, or the one that the other options make."""
        return self._policy

    def _new_dispatch(self) -> Dispatch:
        raise NotImplementedError

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As for any model; a copy with other routing options routes by them."""
        copied = super().model_copy(update=update, deep=deep)
        copied._forget(update or ())
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        # shared, as a policy is: a router may be gigabytes, and holds no state
        memo.update({id(part): part for part in (self.router, self.calibration)})
        memo[id(self.__dict__.get("_dispatch"))] = None
        copied = super().__deepcopy__(memo)
        copied._forget(())
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k != "_dispatch"}}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._forget((name,))

    def _forget(self, changed: Iterable[str]) -> None:
        """Drop what was made from fields that have changed since; it is made anew when needed."""
        self.__dict__.pop("_dispatch", None)
        if not _POLICY_OPTIONS.isdisjoint(changed):
            self.__dict__.pop("_policy", None)


def checked_options(options: dict[str, Any], *, key_allowed: bool = False) -> dict[str, Any]:
    """The fields of `RoutingOptions` from what a constructor was given; the policy is checked when it is made.

    Args:
        options: Every option by name.
        key_allowed: Whether ``route_on=`` may be the key of a dict input.

    Raises:
        ConfigurationError: An option is not allowed.
    """
    if not isinstance(options["failover"], bool):
        raise ConfigurationError(f"failover={options['failover']!r:.80}: expected True or False")
    return {
        **options,
        "lookback": checked_lookback(options["lookback"]),
        "route_on": checked_route_on(options["route_on"], key=key_allowed),
        "sticky": Stickiness.of(options["sticky"]),
    }


def check_names(given: Iterable[str], known: Iterable[str], *, strict: bool) -> None:
    """Refuse arguments that are misspelt options.

    Args:
        given: Names of further arguments.
        known: Names that exist.
        strict: Refuse every unknown name, and not only those close to a known one. A chat model has to let others
            pass: LangChain constructs any of them with ``temperature=``, ``api_key=`` and the like.

    Raises:
        ConfigurationError: There is no such option.
    """
    names = set(known)
    for name in set(given) - names:
        close = get_close_matches(name, names, n=1, cutoff=0.8)
        if close or strict:
            raise ConfigurationError(f"{name}=: no such option" + (f"; is {close[0]}= meant?" if close else ""))


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
