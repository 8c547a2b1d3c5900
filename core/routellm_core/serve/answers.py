"""What a reply says, read beside the bytes that go to the client: whether it has begun, its text, and its usage."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from routellm_core.errors import EmptyAnswerError
from routellm_core.policy.capability import estimated_tokens

# Longest reply that is held back until it is complete, and longest that is read for its usage.
MAX_HELD = 64 << 20
_RESPONSE_ID = re.compile(rb'"id"\s*:\s*"(resp_[^"\\]{1,200})"')
_FRAME_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class BrokenReplyError(RuntimeError):
    """A server said with status 200 that it had failed; another one could answer."""


class AnswerReader:
    """Reads a reply as it passes, plain or as server-sent events, of all three routed APIs.

    A form that it does not know counts as an answer: what cannot be judged is passed on.

    Attributes:
        begun: Whether something has come that a client could use.
        text: The text of the answer, as far as it was read.
        usage: Tokens read and written, where the server reported them.
        model: Name of the model, as the server states it.
        response_id: Id of a stored response, which belongs to its server.
        finish_reason: Why the answer ended, once it has.
        logprobs: Log-probability of each token, where the server gives them.
        body: The whole reply, where it was not streamed.

    Args:
        content_type: Header of the reply.
        content_encoding: Header of the reply; ``gzip`` and ``deflate`` are read.
    """

    def __init__(self, content_type: bytes, content_encoding: bytes) -> None:
        self.begun = False
        self.usage: tuple[int, int] | None = None
        self.model: str | None = None
        self.response_id: str | None = None
        self.finish_reason: str | None = None
        self.logprobs: list[float] = []
        self.body: Any = None
        self._calls: dict[Any, list[str]] = {}
        self._texts: list[str] = []
        self._is_stream = content_type.strip().lower().startswith(b"text/event-stream")
        self._is_sound = False
        self._buffer = bytearray()
        encoding = content_encoding.strip().lower()
        self._is_gzip = encoding in (b"gzip", b"x-gzip")
        self._inflate = zlib.decompressobj(47) if self._is_gzip or encoding == b"deflate" else None
        if encoding not in (b"", b"identity") and self._inflate is None:
            self._give_up()

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def tool_calls(self) -> tuple[tuple[str, str], ...]:
        """Name and arguments, as JSON, of each tool that the answer calls."""
        return tuple((name, arguments) for name, arguments in self._calls.values())

    @property
    def output_tokens(self) -> int:
        """Tokens written: as reported, else estimated from the text."""
        return estimated_tokens(self.text) if self.usage is None else self.usage[1]

    def feed(self, chunk: bytes) -> None:
        """Read one more piece of the body.

        Raises:
            BrokenReplyError: An event tells of an error, and nothing of an answer has come before.
        """
        if self._buffer is None:
            return
        if self._inflate is not None:
            try:
                chunk = self._inflate.decompress(chunk, MAX_HELD)
            except zlib.error:
                # what calls itself deflate is often without the header that zlib asks for, and clients read it
                if self._is_gzip and not self.begun:
                    raise BrokenReplyError("the reply is not gzip, as it says") from None
                self._give_up()
                return
        if self.response_id is None and (found := _RESPONSE_ID.search(chunk)):
            self.response_id = found[1].decode("latin1")
        self._buffer += chunk
        if self._is_stream:
            self._read_frames()
        if len(self._buffer) > MAX_HELD:
            self._give_up()

    def end(self) -> None:
        """The body is complete.

        Raises:
            EmptyAnswerError: It has no content, tool call or finish reason.
            BrokenReplyError: It is not JSON, or tells of an error.
        """
        if self._buffer is None:
            return
        if self._is_stream:
            if self._buffer.strip():  # the last event may lack its empty line
                self._read_frame(bytes(self._buffer))
        else:
            try:
                body = json.loads(bytes(self._buffer).decode())
            except (ValueError, RecursionError):
                raise BrokenReplyError("the reply is not JSON") from None
            self.body = body
            self._read(body)
        if not self._is_sound:
            raise EmptyAnswerError("the reply has no content, tool call or finish reason")
        self.begun = True

    def _give_up(self) -> None:
        """Read no further: the reply counts as an answer."""
        self.begun = self._is_sound = True
        self._buffer = None  # type: ignore[assignment]

    def _read_frames(self) -> None:
        at = 0
        for end in _FRAME_END.finditer(self._buffer):
            self._read_frame(bytes(self._buffer[at : end.start()]))
            at = end.end()
        del self._buffer[:at]

    def _read_frame(self, frame: bytes) -> None:
        data = b"\n".join(line[5:].lstrip(b" ") for line in frame.splitlines() if line.startswith(b"data:"))
        if not data or data == b"[DONE]":
            return
        try:
            event = json.loads(data.decode())
        except (ValueError, RecursionError):
            return
        self._read(event)

    def _read(self, event: Any) -> None:
        """Take in a whole reply, or an event of a stream."""
        if not isinstance(event, dict):
            return
        kind = event.get("type")
        if event.get("error") and not event.get("choices") and not event.get("output"):
            self._failed()
        if isinstance(kind, str) and (kind == "error" or kind.startswith("response.")):
            self._read_response_event(kind, event)
        elif event.get("object") == "response" or "output" in event:
            self._read_response(event)
        elif "choices" in event:
            self._read_choices(event)
        else:
            self._sound()
        self._read_usage(event.get("usage"))
        if isinstance(event.get("model"), str):
            self.model = event["model"]

    def _read_choices(self, event: dict[str, Any]) -> None:
        choices = event["choices"]
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            said = choice.get("delta") or choice.get("message") or choice
            if not isinstance(said, dict):
                continue
            text = said.get("content") or said.get("text")
            if isinstance(text, str):
                self._texts.append(text)
            self._read_tool_calls(said.get("tool_calls"))
            self._read_logprobs(choice.get("logprobs"))
            if any(value for name, value in said.items() if name not in ("role", "index", "logprobs")):
                self._sound(begun=said is not choice or bool(text))
            if choice.get("finish_reason"):
                self._is_sound = True
                self.finish_reason = str(choice["finish_reason"])

    def _read_tool_calls(self, calls: Any) -> None:
        """Put together what comes in pieces: the name first, then the arguments."""
        for place, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                known = self._calls.setdefault(call.get("index", place), ["", ""])
                for i, name in enumerate(("name", "arguments")):
                    if isinstance(function.get(name), str):
                        known[i] += function[name]

    def _read_logprobs(self, logprobs: Any) -> None:
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        for token in content if isinstance(content, list) else ():
            value = token.get("logprob") if isinstance(token, dict) else None
            if isinstance(value, int | float):
                self.logprobs.append(float(value))

    def _read_response_event(self, kind: str, event: dict[str, Any]) -> None:
        if kind in ("error", "response.failed"):
            self._failed()
        delta = event.get("delta")
        if kind.endswith(".delta") and delta:
            if kind == "response.output_text.delta" and isinstance(delta, str):
                self._texts.append(delta)
            self._sound()
        inner = event.get("response")
        if isinstance(inner, dict) and kind in ("response.completed", "response.incomplete"):
            self._is_sound = self._is_sound or bool(inner.get("output"))
            self.finish_reason = kind.removeprefix("response.")
            if isinstance(inner.get("model"), str):
                self.model = inner["model"]
            self._read_usage(inner.get("usage"))

    def _read_response(self, body: dict[str, Any]) -> None:
        output = body.get("output")
        if body.get("status") == "failed":
            self._failed()
        for place, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict) and item.get("type") == "function_call":
                self._calls[place] = [str(item.get("name")), str(item.get("arguments"))]
            content = item.get("content") if isinstance(item, dict) else None
            for part in content if isinstance(content, list) else ():
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    self._texts.append(part["text"])
        self.finish_reason = str(body["status"]) if body.get("status") else None
        if output or body.get("status") in ("queued", "in_progress"):
            self._sound()

    def _read_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        read = usage.get("prompt_tokens", usage.get("input_tokens"))
        written = usage.get("completion_tokens", usage.get("output_tokens"))
        if isinstance(read, int) and isinstance(written, int):
            self.usage = (read, written)

    def _sound(self, *, begun: bool = True) -> None:
        self._is_sound = True
        self.begun = self.begun or begun

    def _failed(self) -> None:
        if not self.begun:
            raise BrokenReplyError("the server reports an error with status 200")
