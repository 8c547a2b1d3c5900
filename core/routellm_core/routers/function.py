"""Use your own functions and objects as routers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from pathlib import Path
from types import CodeType
from typing import Any

from routellm_core.calibration.distribution import Calibration
from routellm_core.calibration.scoring import Scorer
from routellm_core.errors import ConfigurationError
from routellm_core.routers.background import run_sync
from routellm_core.routers.base import Router, fingerprint_of, identity_parts
from routellm_core.routers.folder import RouterFolder
from routellm_core.routers.registry import load_router


class FunctionRouter(Router):
    """A router that wraps a function ``list[str] -> numbers``, or an object with a method ``win_rates``.

    The function or method may be synchronous or ``async``; an object may have ``awin_rates`` in addition to or instead
    of ``win_rates``. The results are checked like those of any router. The router can be pickled if its source can.

    Args:
        source: The function or object. Its attributes ``name``, ``fingerprint``, ``version`` and ``calibration`` are
            used if it has them. Without a fingerprint, two sources are told apart by their qualified name and version
            (lambdas, which have no name of their own, by code and version).

    Raises:
        ConfigurationError: `source` cannot score prompts, or one of its attributes has the wrong type.
    """

    def __init__(self, source: Any) -> None:
        if isinstance(source, type):
            raise ConfigurationError(f"router={source.__name__} is a class: pass an instance")
        scores = callable(getattr(source, "win_rates", None)) or callable(getattr(source, "awin_rates", None))
        if not scores and not callable(source):
            raise ConfigurationError(f"router={source!r:.80}: expected {_ALLOWED}")
        self.source = source
        self.name = _name(source)
        self.version = getattr(source, "version", None)
        self.calibration = getattr(source, "calibration", None)
        if self.calibration is not None and not isinstance(self.calibration, Calibration):
            raise ConfigurationError(
                f"calibration={self.calibration!r:.80} of router {self.name!r}: expected a Calibration or None"
            )
        if not isinstance(getattr(source, "fingerprint", None), str | None):
            raise ConfigurationError(
                f"fingerprint of router {self.name!r}: expected a str that is not a method, or None"
            )
        _ = self.fingerprint  # checks the version now rather than when a calibration is used

    def _win_rates(self, prompts: list[str]) -> Any:
        function = self._method("win_rates") or self._method("awin_rates") or self.source
        result = function(prompts)
        return run_sync(awaited(result)) if isawaitable(result) else result

    async def _awin_rates(self, prompts: list[str]) -> Any:
        function = self._method("awin_rates")
        if function is None:
            score = self._method("win_rates") or self.source
            if not is_async(score):
                from routellm_core.workers import in_background

                result = await in_background(self, lambda: score(prompts))
                return await result if isawaitable(result) else result
            function = score
        result = function(prompts)
        return await result if isawaitable(result) else result

    def _method(self, name: str) -> Callable[[list[str]], Any] | None:
        method = getattr(self.source, name, None)
        return method if callable(method) else None

    @property
    def fingerprint(self) -> str:
        """The source's own fingerprint, or a digest of its qualified name and version."""
        own = getattr(self.source, "fingerprint", None)
        return own if isinstance(own, str) and own else fingerprint_of(self._fingerprint_parts())

    def _fingerprint_parts(self) -> dict[str, Any]:
        function = _unwrapped(self.source)
        named = function if hasattr(function, "__qualname__") else type(function)
        parts = identity_parts(f"{named.__module__}.{named.__qualname__}", self.version)
        code = getattr(function, "__code__", None)
        return {**parts, "code": _code_parts(code)} if code is not None and code.co_name == "<lambda>" else parts

    def __repr__(self) -> str:
        return f"FunctionRouter({self.name})"


def as_router(value: Any) -> Router:
    """Return the router that `value` stands for.

    Args:
        value: A `Router`; a `RouterFolder` for its version in use; None for the bundled default; a name or directory
            for `load_router`; a function ``list[str] -> numbers``, synchronous or ``async``; or an object with a method
            ``win_rates(prompts)``, see `FunctionRouter`.

    Raises:
        ConfigurationError: `value` is something else, or `load_router` does not know the name.
    """
    if isinstance(value, Router):
        return value
    if isinstance(value, RouterFolder):
        return value.load()
    if value is None or isinstance(value, str | Path):
        return load_router() if value is None else load_router(value)
    return FunctionRouter(value)


Scorer.as_router = staticmethod(as_router)

_ALLOWED = (
    "a Router, a name or directory for load_router, None for the bundled router, a function that takes a list of "
    "prompts and returns their win rates, or an object with a method win_rates(prompts)"
)


async def awaited(result: Awaitable[Any]) -> Any:
    """Make a coroutine of anything that can be awaited."""
    return await result


def is_async(function: Any) -> bool:
    """Whether a call of `function` gives a coroutine: a coroutine function, or an object that is called like one."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(source: Any) -> str:
    given = getattr(source, "name", None)
    if isinstance(given, str) and given:
        return given
    function = _unwrapped(source)
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _code_parts(code: CodeType) -> list[Any]:
    constants = [
        _code_parts(value)
        if isinstance(value, CodeType)
        else sorted(map(repr, value))
        if isinstance(value, frozenset)
        else repr(value)
        for value in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]
