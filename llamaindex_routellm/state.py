"""A RouteLLM as a dict, with everything that can change its answers and nothing secret, and back."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

from llama_index.core.llms.llm import LLM

from routellm_core.checks import Side, is_secret_name
from routellm_core.errors import ConfigurationError, RouteLLMError
from routellm_core.policy.acceptance import Acceptance
from routellm_core.policy.routing import Routing
from routellm_core.policy.setups import without_user_info
from routellm_core.routers import load_router


class Levels(dict[Side, Any]):
    """The sides of a model that are routed models, as its levels; a pickle leaves them out, since they are made anew.

    LlamaIndex tries to pickle each private attribute of a model by itself, and so would pickle every level many times.
    """

    def __reduce__(self) -> Any:
        return Levels, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Levels:
        return Levels({side: deepcopy(level, memo) for side, level in self.items()})


_CLASS = "qualified_name"  # as LlamaIndex's own serializers call it


def described_model(model: LLM) -> dict[str, Any]:
    """A model as a dict without its secrets, with the name of its class."""
    return {**_public(model.to_dict()), _CLASS: f"{type(model).__module__}.{type(model).__qualname__}"}


def _public(value: Any) -> Any:
    """A serialized model without its secrets, at any depth."""
    if isinstance(value, Mapping):
        return {
            name: _public(item)
            for name, item in value.items()
            if not is_secret_name(name) or isinstance(item, bool | int | float)
        }
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return without_user_info(value) if isinstance(value, str) else value


def described_routing(routing: Routing) -> dict[str, Any]:
    """What decides which model answers, as JSON values; routings that may decide differently have different ones."""
    policy, sticky, explored = routing.policy, routing.sticky, routing.policy.exploration
    return {
        "router": policy.router.name,
        "router_fingerprint": policy.router_fingerprint,
        "threshold": policy.threshold,
        "strong_fraction": policy.strong_fraction,
        "online": policy.online is not None,
        "on_error": policy.on_error,
        "deadline": policy.deadline,
        "explore": explored.chance if explored else 0.0,
        "explore_band": [explored.low, explored.high] if explored else None,
        "observe": policy.observe,
        "limits": [repr(limit) for limit in policy.limits],
        "lookback": routing.lookback,
        "synthetic_markers": list(routing.synthetic_markers),
        "allow_overrides": routing.allow_overrides,
        "route_on": None if routing.route_on is None else _name_of(routing.route_on),
        "sticky": None if sticky is None else sticky.to_dict(),
        "failover": routing.failover,
        "cooldown": 0.0 if routing.cooldown is None else routing.cooldown.seconds,
        "weak_profile": dict(routing.weak_profile),
        "prices": routing.prices and {name: [price.input, price.output] for name, price in routing.prices.items()},
        "accept": None if routing.acceptance is None else _described_check(routing.acceptance),
        "log": None if routing.log is None else repr(routing.log),
        "shadow": None if routing.shadow is None else repr(routing.shadow),
    }


def _described_check(acceptance: Acceptance) -> dict[str, Any]:
    band = None if acceptance.band is None else list(acceptance.band)
    given = {"threshold": acceptance.threshold, "band": band, "after": acceptance.after}
    return {"check": _name_of(acceptance.check), **given, "deadline": acceptance.deadline}


_PLAIN = (
    "lookback", "synthetic_markers", "allow_overrides", "failover", "cooldown", "sticky", "weak_profile", "prices",
)  # fmt: skip
# a dict can name these but cannot contain them
_NOT_IN_A_DICT = ("route_on", "limits", "online", "accept", "log", "shadow")
_OF_NO_POLICY = ("route_on", "accept", "log", "shadow", "sticky")


def restored(data: Mapping[str, Any], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Arguments for a `RouteLLM` like the one that was described.

    Args:
        data: The results of `described_model` and `described_routing`.
        given: Arguments that replace entries of the dict, or that no dict can hold.
        owner: Name of the class, for messages.

    Raises:
        ConfigurationError: Something that no dict can hold is missing; the message says what to pass.
    """
    options: dict[str, Any] = {}
    for side in ("strong", "weak"):
        if side not in given:
            options[side] = _restored_model(side, data[side], owner)
    lost = [name for name in _NOT_IN_A_DICT if data.get(name) and name not in given]
    if (data["sticky"] or {}).get("function") and "sticky" not in given:
        lost.append("sticky")
    if "policy" in given:
        lost = [name for name in lost if name in _OF_NO_POLICY]
    if lost:
        raise _refusal(owner, {name: data[name] for name in lost}, "a dict cannot hold it")
    options |= {name: data[name] for name in _PLAIN}
    if data["accept"] is not None:
        checked = {**data["accept"], "band": data["accept"]["band"] and tuple(data["accept"]["band"])}
        options |= {f"accept_{name}": checked[name] for name in ("threshold", "band", "after", "deadline")}
    if "policy" not in given:
        options |= {name: data[name] for name in ("on_error", "deadline", "explore", "observe")}
        options["explore_band"] = data["explore_band"] and tuple(data["explore_band"])
        options |= _restored_router(data, owner) if "router" not in given else {"threshold": data["threshold"]}
        if {"threshold", "strong_fraction"} & given.keys():
            options = {name: value for name, value in options.items() if name not in ("threshold", "strong_fraction")}
    return {**options, **given}


def _restored_router(data: Mapping[str, Any], owner: str) -> dict[str, Any]:
    try:
        router = load_router(data["router"])
    except RouteLLMError as exc:
        raise _refusal(owner, {"router": data["router"]}, "it cannot be loaded by its name") from exc
    if router.fingerprint != data["router_fingerprint"]:
        raise _refusal(owner, {"router": data["router"]}, "the one of this name gives other win rates")
    share, calibration = data["strong_fraction"], router.calibration
    if share is None or calibration is None or calibration.threshold(strong_fraction=share) != data["threshold"]:
        return {"router": router, "threshold": data["threshold"]}
    return {"router": router, "strong_fraction": share}


def _restored_model(side: str, described: Mapping[str, Any], owner: str) -> LLM:
    module, _, name = str(described.get(_CLASS)).rpartition(".")
    try:
        cls = getattr(import_module(module), name)
        if not issubclass(cls, LLM):
            raise TypeError(f"{name} is not an LLM")
        model: LLM = cls.from_dict({key: value for key, value in described.items() if key != _CLASS})
    except Exception as exc:
        raise _refusal(owner, {side: name}, f"{type(exc).__name__} when it is built without its secrets") from exc
    return model


def _refusal(owner: str, lost: Mapping[str, Any], why: str) -> ConfigurationError:
    what = ", ".join(f"{name}={value!r:.80}" for name, value in lost.items())
    give = ", ".join(f"{name}=" for name in lost)
    return ConfigurationError(
        f"{owner}.from_dict cannot restore {what} ({why}): pass {give} to it, or leave the model out of what is saved "
        "and set it afterwards"
    )


def why_not_pickled(routing: Routing) -> str:
    """What of a routing cannot be pickled, and what to do about it."""
    if not _is_picklable(routing.route_on):
        return (
            f"route_on={_name_of(routing.route_on)} cannot be pickled: define the function at the top level of a "
            "module, not as a lambda or inside of another function"
        )
    return f"router={routing.policy.router.name!r} cannot be pickled: make the model in the process that uses it"


def _is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def _name_of(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
