"""A side of a RouteLLM: its model under the callback manager of a call, and the model's metadata."""

from __future__ import annotations

import copy
import threading
import time
from abc import ABCMeta
from collections.abc import Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, cast
from weakref import WeakSet

import llama_index.core
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.llm import LLM
from llama_index.core.utils import get_tokenizer

from routellm_core.policy.capability import MAX_INPUT_TOKENS, TOOL_CALLING
from routellm_core.policy.setups import Setup

# -- callbacks --

# Managers whose handlers came from `Settings`: they still count as inherited when `Settings` has new handlers.
_INHERITED: WeakSet[CallbackManager] = WeakSet()


def has_own_handlers(model: LLM) -> bool:
    """Whether the user gave this model handlers of its own.

    LlamaIndex puts the global handler and the current handlers of `Settings` on every model that is created without
    any. Those do not count, also once `Settings` has others, where this was called before.
    """
    manager = model.callback_manager
    if all(handler is llama_index.core.global_handler for handler in manager.handlers):
        return False
    shared = Settings._callback_manager
    if shared is not None and manager.handlers is shared.handlers:
        _INHERITED.add(manager)
    return "callback_manager" in model.model_fields_set and manager not in _INHERITED


def under_manager(model: LLM, manager: CallbackManager) -> LLM:
    """The model under another callback manager; the model itself keeps its own.

    A model may be shared between routers, threads and requests, so nothing is set on it. The result is another handle
    on the same state: all attributes but the callback manager are shared.
    """
    if model.callback_manager is manager or not (manager.handlers or model.callback_manager.handlers):
        return model
    handle: Any = object.__new__(_handle_class(type(model)))
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(handle, slot, object.__getattribute__(model, slot))
    object.__setattr__(handle, "_routellm_model", model)
    object.__setattr__(handle, "_routellm_manager", manager)
    return cast(LLM, handle)


@lru_cache(maxsize=256)
def _handle_class(cls: type[LLM]) -> type[LLM]:
    """A subclass whose objects have a callback manager of their own in place of the field."""
    manager = property(
        lambda handle: handle._routellm_manager,
        lambda handle, value: object.__setattr__(handle, "_routellm_manager", value),
    )
    namespace: dict[str, Any] = {
        "__slots__": ("_routellm_manager", "_routellm_model"),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "callback_manager": manager,
        # pydantic caches here how a class sets its attributes; `cls` must not share the cache of this one
        "__pydantic_setattr_handlers__": {},
        # copies and pickles are those of the model
        "__copy__": lambda handle: copy.copy(handle._routellm_model),
        "__deepcopy__": lambda handle, memo=None: copy.deepcopy(handle._routellm_model, memo),
        "__reduce_ex__": lambda handle, protocol: (_itself, (handle._routellm_model,)),
    }
    if hasattr(cls, "__del__"):
        namespace["__del__"] = lambda handle: None  # the model lives on
    # bypasses pydantic's metaclass, which would build the schema of the class once more
    return ABCMeta.__new__(type(cls), cls.__name__, (cls,), namespace)


def _itself(model: LLM) -> LLM:
    return model


# -- metadata --

# Seconds that a call waits until a model has said what it is. A client may wait much longer for a server that hangs.
_PATIENCE = 2.0
# Seconds for which a model that could not say what it is counts as unknown, and is not asked again.
_SILENCE = 30.0


class SideMetadata:
    """A model's metadata, or None when it has none: its server is down, or its client does not know its name.

    Some models ask their server. A call waits for that for 2 seconds at most, and not at all for 30 seconds after a
    failure, so that calls to the other model do not suffer.
    """

    __slots__ = ("_has_answered", "_model", "_silent_until")

    def __init__(self, model: LLM) -> None:
        self._model = model
        self._has_answered = False
        self._silent_until = 0.0

    def __call__(self) -> LLMMetadata | None:
        if time.monotonic() < self._silent_until:
            return None
        try:
            found = self._model.metadata if self._has_answered else self._asked_in_a_thread()
        except Exception:
            self._silent_until = time.monotonic() + _SILENCE
            self._has_answered = False
            return None
        self._has_answered = True
        return found

    def _asked_in_a_thread(self) -> LLMMetadata:
        answer: Future[LLMMetadata] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._model.metadata)
            except BaseException as exc:
                answer.set_exception(exc)

        threading.Thread(target=ask, name="routellm-metadata", daemon=True).start()
        return answer.result(timeout=_PATIENCE)

    @property
    def name(self) -> str:
        """The model's name for messages, even if its metadata is unknown."""
        found = self()
        return found.model_name if found is not None else str(getattr(self._model, "model", type(self._model).__name__))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model,)  # another process has another clock


def setup_of(model: LLM) -> Setup | None:
    """How a side is set up; None for a routed model, which knows its own two."""
    if isinstance(getattr(model, "strong", None), LLM):
        return None
    found = (getattr(model, name, None) for name in ("api_base", "base_url", "azure_endpoint"))
    url = next((value for value in found if isinstance(value, str) and value), None)
    name = getattr(model, "model", None) or getattr(model, "model_name", None)
    try:
        rest: Any = model.to_dict()
    except Exception:  # a client that cannot be serialized; then nothing is known of its settings
        rest = id(model)
    return Setup(name if isinstance(name, str) else None, url, rest)


def profile(metadata: LLMMetadata | None) -> dict[str, Any]:
    """Metadata by the keys of `routellm_core.policy.capability`; what it does not state is absent."""
    if metadata is None:
        return {}
    found: dict[str, Any] = {TOOL_CALLING: metadata.is_function_calling_model}
    # the window holds prompt and answer
    room = _stated(metadata.context_window) - _stated(metadata.num_output)
    if _stated(metadata.context_window) and room > 0:
        found[MAX_INPUT_TOKENS] = room
    return found


def joint_metadata(strong: SideMetadata, weak: SideMetadata) -> LLMMetadata | None:
    """What holds whichever model answers; the other side's metadata if one side's is unknown; None if both are.

    LlamaIndex fits prompts into ``context_window - num_output``, so that never exceeds the room of either side.
    """
    known = [metadata for metadata in (strong(), weak()) if metadata is not None]
    if not known:
        return None
    sized = [metadata for metadata in known if _stated(metadata.context_window)]
    window = min((metadata.context_window for metadata in sized), default=DEFAULT_CONTEXT_WINDOW)
    # LlamaIndex leaves a default for the answer where a model does not say how long it may be
    rooms = [m.context_window - (_stated(m.num_output) or DEFAULT_NUM_OUTPUTS) for m in sized]
    roles = {metadata.system_role for metadata in known}
    return LLMMetadata(
        context_window=window,
        num_output=window - min(rooms) if rooms else DEFAULT_NUM_OUTPUTS,
        is_chat_model=all(metadata.is_chat_model for metadata in known),
        # a call with tools goes to the strong model where the weak one cannot take it
        is_function_calling_model=known[0].is_function_calling_model,
        model_name=f"RouteLLM(strong={strong.name}, weak={weak.name})",
        system_role=roles.pop() if len(roles) == 1 else MessageRole.SYSTEM,
    )


def _stated(tokens: int | None) -> int:
    """A number of tokens; 0 if the model states None, -1 or 0, which all mean unknown."""
    return tokens if tokens is not None and tokens > 0 else 0


def count_tokens(messages: Sequence[ChatMessage], limit: int) -> int:
    """Tokens of the texts, by the tokenizer with which LlamaIndex fits prompts into a window.

    Texts that cannot have more than `limit` tokens, since a token has at least one byte, are not counted; the result is
    then their number of bytes.
    """
    texts = [message.content or "" for message in messages]
    most = sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if most <= limit:
        return most
    tokenizer = get_tokenizer()
    return sum(len(tokenizer(text)) for text in texts)
