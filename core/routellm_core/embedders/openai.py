"""OpenAIEmbedder: embeddings from OpenAI, or any service with its API, through the ``openai`` client."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np

from routellm_core.checks import no_key_inside
from routellm_core.embedders.base import FloatMatrix, checked_embeddings
from routellm_core.embedders.openai_client import unlogged_request
from routellm_core.errors import ConfigurationError, MissingExtraError, RouterError
from routellm_core.loop_clients import LoopClients

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

logger = logging.getLogger(__name__)

# Limits of the service for one request: https://platform.openai.com/docs/api-reference/embeddings/create
MAX_INPUTS = 2048
MAX_REQUEST_TOKENS = 300_000
MAX_INPUT_TOKENS = 8191
# A token is at least one byte of UTF-8, and about four in common text. A text that is cut to 4, 2 and then 1 byte per
# token therefore keeps as much of common text as possible, and the last cut fits for any text.
_CUTS = (4, 2, 1)
_DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


class OpenAIEmbedder:
    """Embeds texts with an OpenAI-compatible service; safe for threads and event loops.

    A batch is sent in requests of up to 2,048 inputs and 300,000 tokens (counted as UTF-8 bytes, which are never fewer
    than tokens); vectors are returned in the order of the texts. An empty text, which the service rejects, is sent as
    one space, and lone surrogates are sent as "?". A text of over 4 bytes per allowed token is truncated, and truncated
    further on its own if the service still rejects it (a warning is logged once).

    The client retries 408, 409, 429 (respecting Retry-After), 5xx, time-outs and broken connections up to `max_retries`
    times. A failure that remains, any other status, a wrong number of vectors and a wrong dimension raise
    `RouterError`. No message, log record or chained exception contains a text or the key: while a request of this class
    is in progress, the client's own debug records, which contain both, are dropped. A pickled embedder does not contain
    the key: another process reads its own from ``OPENAI_API_KEY``.

    Args:
        model: Name of the embedding model.
        dimensions: Length of the vectors to request; None requests the model's own.
        base_url: Address of the service; None uses ``OPENAI_BASE_URL``, or else OpenAI.
        api_key: The key; None uses ``OPENAI_API_KEY``. A service that needs no key accepts any text.
        timeout: Seconds per attempt of a request.
        max_retries: Number of retries of a request.
        max_input_tokens: Context length of the model, in tokens.

    Raises:
        ConfigurationError: A value is not allowed, or there is no key.
        MissingExtraError: The ``openai`` package is not installed.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        max_input_tokens: int = MAX_INPUT_TOKENS,
    ) -> None:
        try:
            import openai  # noqa: F401 - needed for the first call, but an error belongs here, at configuration
        except ImportError:
            raise MissingExtraError("OpenAIEmbedder", "openai") from None
        if not isinstance(model, str) or not model:
            raise ConfigurationError(f"model={model!r}: expected the name of an embedding model")
        for parameter, value, least in (
            ("dimensions", dimensions, 1),
            ("max_retries", max_retries, 0),
            ("max_input_tokens", max_input_tokens, 1),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigurationError(f"{parameter}={value!r}: expected an int >= {least}")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigurationError(f"timeout={timeout!r}: expected seconds > 0")
        self._api_key = api_key
        self._key()
        self.model, self.dimensions = model, dimensions
        self.timeout, self.max_retries, self.max_input_tokens = float(timeout), max_retries, max_input_tokens
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        # Another service may serve a different model under a known name, so its length is learned from the first call.
        self._dimension = dimensions or (_DIMENSIONS.get(model) if self.base_url is None else None)
        self._warned = False
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._client: OpenAI | None = None
        self._async_clients = LoopClients(self._make_async_client)

    def __getstate__(self) -> dict[str, Any]:
        no_key_inside(self.base_url, owner="OpenAIEmbedder")
        clients = ("_lock", "_client", "_async_clients")
        return {name: value for name, value in vars(self).items() if name not in clients} | {"_api_key": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # without a key the first call fails: an exception here would leave a `multiprocessing.Pool` waiting for ever
        vars(self).update(state)
        self._open()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # in this process, which has the key

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None before the first call if neither `dimensions` nor the model determines it."""
        return self._dimension

    def __repr__(self) -> str:
        return f"OpenAIEmbedder(model={self.model!r}, dimensions={self.dimensions}, base_url={self._shown_url()!r})"

    def config(self) -> dict[str, Any]:
        """Return what a saved router stores: no key, and no password in the address."""
        return {"type": "openai", "model": self.model, "dimensions": self.dimensions, "base_url": self._shown_url()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build the embedder that a saved config describes, if it used OpenAI itself.

        Raises:
            ConfigurationError: It used another address. An address is never read from a file: a checkpoint from
                elsewhere could name any server, which would be sent the key and every prompt.
        """
        if config.get("base_url") and config["base_url"] != os.environ.get("OPENAI_BASE_URL"):
            raise ConfigurationError(
                f"the saved embedder used base_url={config['base_url']!r}, but addresses are not read from files: set "
                "OPENAI_BASE_URL to it, or pass embedder=OpenAIEmbedder(..., base_url=...)"
            )
        return cls(config.get("model", "text-embedding-3-small"), dimensions=config.get("dimensions"))

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed n texts as a float32 matrix (n, dimension).

        Raises:
            RouterError: The service failed, rejected the texts, or did not return their vectors.
        """
        plan = self._plan(list(texts))
        answer: Any = None
        while True:
            try:
                inputs = plan.send(answer)
            except StopIteration as end:
                matrix: FloatMatrix = end.value
                return matrix
            with unlogged_request():
                try:
                    answer = self._sync_client().embeddings.create(**self._request(inputs))
                except ConfigurationError:
                    raise
                except Exception as exc:  # anything that the client raises may quote the request
                    answer = self._failure(exc)

    async def aembed(self, texts: Sequence[str]) -> FloatMatrix:
        """Like `embed`, on the client's own async connections."""
        plan = self._plan(list(texts))
        answer: Any = None
        while True:
            try:
                inputs = plan.send(answer)
            except StopIteration as end:
                matrix: FloatMatrix = end.value
                return matrix
            with unlogged_request():
                try:
                    client = await self._async_clients.get()
                    answer = await client.embeddings.create(**self._request(inputs))
                except ConfigurationError:
                    raise
                except Exception as exc:  # anything that the client raises may quote the request
                    answer = self._failure(exc)

    def _plan(self, texts: list[str]) -> Generator[list[str], Any, FloatMatrix]:
        """Plan the requests, for a sync and an async driver: yields inputs, receives a response or a `_Failed`."""
        if not texts:
            return np.zeros((0, self._dimension or 0), dtype=np.float32)
        sendable = [self._sendable(text) for text in texts]
        rows: dict[int, FloatMatrix] = {}
        for batch in self._batches(sendable):
            matrix = self._matrix((yield [sendable[i][0] for i in batch]), len(batch))
            if matrix is not None:
                rows.update(zip(batch, matrix, strict=True))
                continue
            # Rejected. Only long inputs can be the reason, and each is cut on its own: how much of a text is embedded
            # never depends on the other texts of its batch.
            long = [i for i in batch if sendable[i][1] >= self.max_input_tokens]
            short = [i for i in batch if sendable[i][1] < self.max_input_tokens]
            if short and long:
                rows.update(zip(short, self._sure((yield [sendable[i][0] for i in short]), len(short)), strict=True))
            for i in long:
                # It was rejected on its own, after the first cut.
                for cut in _CUTS if len(batch) > 1 else _CUTS[1:]:
                    matrix = self._matrix((yield [self._cut(sendable[i][0], cut)]), 1)
                    if matrix is not None:
                        rows[i] = matrix[0]
                        break
            if len(rows) < batch[-1] + 1:
                raise RouterError(f"{self!r}: the service refused the request (status 400)")
        return np.stack([rows[i] for i in range(len(texts))])

    def _sendable(self, text: str) -> tuple[str, int]:
        """Return the text in the form in which it can be sent, and an upper bound on its tokens."""
        clean = text.encode("utf-8", "replace").decode("utf-8") or " "
        short = self._cut(clean, _CUTS[0])
        if len(short) < len(clean) and not self._warned:
            self._warned = True
            logger.warning(
                "a text of over %d bytes is cut to its beginning before it is embedded (logged once)",
                _CUTS[0] * self.max_input_tokens,
            )
        return short, min(len(short.encode()), self.max_input_tokens)

    def _cut(self, text: str, bytes_per_token: int) -> str:
        return text.encode()[: bytes_per_token * self.max_input_tokens].decode("utf-8", "ignore")

    def _batches(self, sendable: list[tuple[str, int]]) -> Iterator[list[int]]:
        batch: list[int] = []
        tokens = 0
        for i, (_, bound) in enumerate(sendable):
            if batch and (len(batch) == MAX_INPUTS or tokens + bound > MAX_REQUEST_TOKENS):
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += bound
        yield batch

    def _request(self, inputs: list[str]) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self.model, "input": inputs, "encoding_format": "float"}
        return request if self.dimensions is None else {**request, "dimensions": self.dimensions}

    def _sure(self, answer: Any, count: int) -> FloatMatrix:
        matrix = self._matrix(answer, count)
        if matrix is None:
            raise RouterError(f"{self!r}: the service refused the request (status 400)")
        return matrix

    def _matrix(self, answer: Any, count: int) -> FloatMatrix | None:
        """Return the vectors of a response in the order of the inputs; None if the service rejected the inputs."""
        if isinstance(answer, _Failed):
            if answer.refused:
                return None
            raise RouterError(f"{self!r}: {answer.reason}")
        try:
            items = sorted(answer.data, key=lambda item: item.index)
            indices = [item.index for item in items]
            vectors = [np.asarray(item.embedding, dtype=np.float32) for item in items]
        except (AttributeError, TypeError, ValueError):
            vectors, indices = None, []
        if vectors is None:
            raise RouterError(f"{self!r}: the response of the service does not contain embeddings")
        if indices != list(range(count)):
            raise RouterError(f"{self!r}: the service returned {len(indices)} vectors for {count} texts")
        lengths = {vector.shape for vector in vectors}
        if len(lengths) > 1:
            raise RouterError(f"{self!r}: the service returned vectors of different lengths")
        matrix = checked_embeddings(np.stack(vectors), count, self._dimension, repr(self))
        self._dimension = matrix.shape[1]
        return matrix

    def _failure(self, exc: Exception) -> _Failed:
        """Describe a failure without quoting the request or the response."""
        import openai

        if isinstance(exc, openai.BadRequestError):
            return _Failed("the service refused the request (status 400)", refused=True)
        if isinstance(exc, openai.APIStatusError):
            hint = {
                401: "; check the API key",
                403: "; check the API key",
                404: "; check model and base_url",
                429: f"; rate or quota limit, also after {self.max_retries} retries",
            }.get(exc.status_code, f", also after {self.max_retries} retries" if exc.status_code >= 500 else "")
            return _Failed(f"the service answered with status {exc.status_code}{hint}")
        if isinstance(exc, openai.APITimeoutError):
            return _Failed(f"no answer within {self.timeout:g} s, also after {self.max_retries} retries")
        if isinstance(exc, openai.APIConnectionError):
            return _Failed(f"the connection failed, also after {self.max_retries} retries; check base_url and network")
        return _Failed(f"the client failed with {type(exc).__name__}")

    def _key(self) -> str:
        key = self._api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ConfigurationError(
                "api_key=None and OPENAI_API_KEY is not set: pass a key (any text for a service that needs none), "
                "or use an embedder that needs no service"
            )
        return key

    def _options(self) -> dict[str, Any]:
        return {
            "api_key": self._key(),
            "base_url": self.base_url,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
        }

    def _sync_client(self) -> OpenAI:
        with self._lock:
            if self._client is None:
                from openai import OpenAI

                self._client = OpenAI(**self._options())
            return self._client

    def _make_async_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(**self._options())

    def _shown_url(self) -> str | None:
        if self.base_url is None:
            return None
        parts = urlsplit(self.base_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class _Failed:
    """A failed request, passed on as a value so that the error raised for it has no chained exception."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        self.reason = reason
        self.refused = refused
