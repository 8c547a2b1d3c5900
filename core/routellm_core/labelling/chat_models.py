"""Chat models that answer and judge: any OpenAI-compatible service, a LangChain chat model or a LlamaIndex LLM.

An error of a service is never passed on with its message, which may quote the prompt or the key: a `CallError` says the
class of the error and the HTTP status.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from routellm_core.checks import no_key_inside
from routellm_core.embedders.openai_client import unlogged_request
from routellm_core.errors import ConfigurationError, MissingExtraError, RouterError
from routellm_core.loop_clients import LoopClients
from routellm_core.policy.setups import shown_address

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# A wrong key, no access to the model, an unknown model or path: every further call would fail in the same way.
_FATAL_STATUS = frozenset({401, 402, 403, 404})
_ADVICE = {
    401: ": the service refuses the API key",
    403: ": the service refuses the API key, or the model to this key",
    404: ": the service has no model of this name, or the URL is not the base of its API, which often ends in /v1",
}


@dataclass(frozen=True)
class Reply:
    """A chat model's reply.

    Attributes:
        text: The text; empty when there is none.
        prompt_tokens: Tokens of the question as the service counted them; 0 when it did not say.
        completion_tokens: Tokens of the reply, likewise.
        served_by: The model's name as the service gave it in the reply; None when it did not say.
        truncated: Whether the reply was cut off at a limit of tokens.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    served_by: str | None = None
    truncated: bool = False


class ChatModel(Protocol):
    """A model that replies to one message.

    `ask` raises `CallError` when it fails; any other exception is treated as a failure that a retry may cure. A model
    may also have ``settings``, a mapping of JSON values that change its replies (temperature and the like): answers are
    then asked for again when they change.
    """

    name: str

    async def ask(self, system: str | None, user: str) -> Reply:
        """Reply to `user` under the instructions `system`."""
        ...


def settings_of(model: ChatModel) -> dict[str, Any]:
    """The settings of a model that change its replies; empty for a model that does not say."""
    settings = getattr(model, "settings", None)
    return dict(settings) if isinstance(settings, Mapping) else {}


class CallError(RouterError):
    """A call to a chat model failed.

    Attributes:
        retry: Whether the same call may succeed later.
        fatal: Whether every further call would fail in the same way (a wrong key, an unknown model).
        wait: Seconds after which the service asks to be called again, or None.
        unreachable: Whether no connection to the service came about: it is down, or its address is wrong.
    """

    def __init__(
        self, message: str, *, retry: bool, fatal: bool = False, wait: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(message)
        self.retry, self.fatal, self.wait, self.unreachable = retry, fatal, wait, unreachable

    @classmethod
    def of_status(cls, what: str, status: int, headers: Any) -> CallError:
        """The error for a reply with an HTTP status that means failure.

        Args:
            what: The message without any text of the service.
            status: The status.
            headers: Headers of the reply, or None.
        """
        return cls(
            f"{what}{_ADVICE.get(status, '')}",
            retry=status in _RETRIED_STATUS,
            fatal=status in _FATAL_STATUS,
            wait=None if headers is None else _retry_after(headers),
        )


class OpenAIChatModel:
    """A model behind any OpenAI-compatible service.

    The request holds ``model`` and ``messages``, which every such service understands, and `options`. A model may be
    used in several event loops, one after another or at once. A pickled model does not contain the key: another process
    reads its own from the environment variable `key_env`.

    Args:
        model: Name of the model at the service.
        base_url: URL of the service; None: the environment variable OPENAI_BASE_URL, or OpenAI itself.
        api_key: Key of the service; None: the environment variable `key_env`. A service without keys accepts any text.
        key_env: Name of the environment variable that holds the key.
        timeout: Seconds for one call.
        **options: Further fields of the request, such as ``temperature`` or ``max_tokens``.

    Attributes:
        name: Name of the model at the service.
        base_url: URL of the service; None is OpenAI.
        settings: The options.

    Raises:
        ConfigurationError: There is no key. Nothing is sent to find out, so creating the model is the check to make
            before anybody is asked to confirm a cost.
        MissingExtraError: The openai package is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        **options: Any,
    ) -> None:
        try:
            import openai  # noqa: F401 - needed for the first call, but an error belongs here, at configuration
        except ImportError:
            raise MissingExtraError("Calling an OpenAI-compatible model", "openai") from None
        if not isinstance(model, str) or not model:
            raise ConfigurationError(f"model={model!r}: expected the name of a model at its service")
        self.name = model
        self.settings = options
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._at = f" at {shown_address(self.base_url)}" if self.base_url else ""
        self._api_key, self._key_env, self._timeout = api_key, key_env, timeout
        self._key()
        self._clients = LoopClients(self._make_client)

    def _key(self) -> str:
        key = self._api_key or os.environ.get(self._key_env)
        if not key:
            raise ConfigurationError(
                f"environment variable {self._key_env} is not set: it holds the API key for model {self.name!r}; set "
                "it (to any text where the service asks for no key), or pass api_key="
            )
        return key

    def _make_client(self) -> AsyncOpenAI:
        import openai

        # the client's own retries are off: waiting for a rate limit has to hold back all workers, not one call
        return openai.AsyncOpenAI(base_url=self.base_url, api_key=self._key(), timeout=self._timeout, max_retries=0)

    def __getstate__(self) -> dict[str, Any]:
        no_key_inside(self.base_url, self.settings, owner=f"model {self.name!r}")
        return {name: value for name, value in vars(self).items() if name != "_clients"} | {"_api_key": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # without a key the first call fails: an exception here would leave a `multiprocessing.Pool` waiting for ever
        vars(self).update(state)
        self._clients = LoopClients(self._make_client)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # in this process, which has the key; nothing changes after construction

    async def ask(self, system: str | None, user: str) -> Reply:
        """Reply to `user`; see `ChatModel`."""
        import openai

        try:
            client = await self._clients.get()
        except ConfigurationError as exc:  # no key in the process that it was sent to
            raise CallError(str(exc), retry=False, fatal=True) from None
        messages: list[Any] = [{"role": "user", "content": user}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        try:
            with unlogged_request():
                answer: Any = await client.chat.completions.create(model=self.name, messages=messages, **self.settings)
        except openai.APIStatusError as exc:
            at = self._at if exc.status_code in _ADVICE else ""
            what = f"{self.name}{at}: HTTP status {exc.status_code} ({type(exc).__name__})"
            raise CallError.of_status(what, exc.status_code, exc.response.headers) from None
        except openai.APITimeoutError as exc:
            raise CallError(f"{self.name}{self._at}: no answer in time ({type(exc).__name__})", retry=True) from None
        except openai.APIConnectionError as exc:
            what = f"{self.name}{self._at}: the server cannot be reached ({type(exc).__name__}); is it running, and is "
            raise CallError(f"{what}the URL right?", retry=True, unreachable=_is_refused(exc)) from None
        except openai.APIError as exc:
            raise CallError(f"{self.name}: {type(exc).__name__}", retry=True) from None
        if not isinstance(getattr(answer, "choices", None), list):
            # a page of another server, or an error with status 200, as some gateways send it
            raise CallError(
                f"{self.name}{self._at}: the reply is no chat completion; is the URL the base of the service's API, "
                "which often ends in /v1?",
                retry=not isinstance(answer, str),
            )
        choice = answer.choices[0] if answer.choices else None
        usage = answer.usage
        return Reply(
            text=(choice.message.content if choice else None) or "",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            served_by=answer.model or None,
            truncated=choice is not None and choice.finish_reason == "length",
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._clients.aclose()


class LLMChatModel:
    """A LangChain chat model (anything with ``ainvoke``) or a LlamaIndex LLM (``acomplete``) as a `ChatModel`.

    Neither framework is imported: LangChain models get (role, text) pairs, LlamaIndex LLMs a text. A model with a key
    inside is not pickled: make it in each process.

    Args:
        llm: The model.
        name: Its name in the journal and in reports; None: the name that it calls itself.

    Raises:
        ConfigurationError: `llm` has neither method.
    """

    def __init__(self, llm: Any, name: str | None = None) -> None:
        self._llm = llm
        self._kind = next((m for m in ("ainvoke", "acomplete") if callable(getattr(llm, m, None))), None)
        if self._kind is None:
            raise ConfigurationError(
                f"llm={type(llm).__name__}: expected a LangChain chat model (with ainvoke) or a LlamaIndex LLM "
                "(with acomplete)"
            )
        own = next((v for a in ("model_name", "model") if isinstance(v := getattr(llm, a, None), str) and v), None)
        self.name = name or own or type(llm).__name__

    def __getstate__(self) -> dict[str, Any]:
        no_key_inside(self._llm, owner=f"llm={type(self._llm).__name__}")
        return vars(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # shares the model, as a user who passes it on does

    async def ask(self, system: str | None, user: str) -> Reply:
        """Reply to `user`; see `ChatModel`."""
        try:
            if self._kind == "ainvoke":
                messages = [("user", user)] if system is None else [("system", system), ("user", user)]
                return _langchain_reply(await self._llm.ainvoke(messages))
            answer = await self._llm.acomplete(user if system is None else f"{system}\n\n{user}")
            return Reply(str(answer.text))
        except Exception as exc:
            what = f"{self.name}: {type(exc).__name__}"
            status = getattr(exc, "status_code", None)
            if not isinstance(status, int):
                raise CallError(what, retry=True) from None
            headers = getattr(getattr(exc, "response", None), "headers", None)
            raise CallError.of_status(f"{what} (HTTP status {status})", status, headers) from None


def _is_refused(exc: BaseException) -> bool:
    """Whether a connection did not come about at all, unlike one that broke while a reply was awaited."""
    causes = [exc.__cause__, exc.__cause__ and exc.__cause__.__cause__]
    return any(type(cause).__name__ in ("ConnectError", "ConnectionRefusedError", "gaierror") for cause in causes)


def _langchain_reply(message: Any) -> Reply:
    content = getattr(message, "content", message)
    if not isinstance(content, str):  # content blocks: reasoning and the like are left out
        parts = (b if isinstance(b, str) else b.get("text", "") for b in content if isinstance(b, str | dict))
        content = "".join(part for part in parts if isinstance(part, str))
    usage = getattr(message, "usage_metadata", None) or {}
    about = getattr(message, "response_metadata", None) or {}
    return Reply(
        content,
        int(usage.get("input_tokens", 0)),
        int(usage.get("output_tokens", 0)),
        served_by=about.get("model_name"),
        truncated=about.get("finish_reason") == "length",
    )


def _retry_after(headers: Any) -> float | None:
    """Seconds that the service asks us to wait: from its milliseconds, seconds, or date form."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000.0)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
