"""What each chat API takes: the published schema where the provider's package is installed, and the rules beyond it.

Each function returns why the real service would refuse a request, or None. The schemas are those of the packages
``openai``, ``anthropic``, ``ollama`` and ``google-genai``, with unknown fields forbidden; the rules are those that no
type shows: what has to answer a tool call, where thinking stands, which ids and signatures belong together.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

Body = Mapping[str, Any]


# --- schemas ---


@cache
def _schema(package: str, module: str, name: str) -> TypeAdapter[Any] | None:
    """The schema of a request, or None when the package that publishes it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    kind = getattr(import_module(module), name)
    _forbid_unknown_fields(package)
    return TypeAdapter(kind)


def _forbid_unknown_fields(package: str) -> None:
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.types"):
            for kind in vars(module).values():
                if is_typeddict(kind) and not hasattr(kind, "__pydantic_config__"):
                    kind.__pydantic_config__ = ConfigDict(extra="forbid")


def _mismatch(schema: TypeAdapter[Any] | None, body: Any) -> str | None:
    if schema is None:
        return None
    try:
        _consumed(schema.validate_python(body))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, e['loc']))[-90:]}: {e['msg']}" for e in errors[:6])
    return None


def _consumed(value: Any) -> None:
    """Iterables are validated as they are read."""
    if isinstance(value, Mapping):
        for part in value.values():
            _consumed(part)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes | BaseModel):
        for part in value:
            _consumed(part)


def _first(*problems: str | None) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


# --- OpenAI ---


def openai_chat_refusal(body: Body) -> str | None:
    schema = _schema("openai", "openai.types.chat.completion_create_params", "CompletionCreateParamsNonStreaming")
    return _first(
        _mismatch(schema, {k: v for k, v in body.items() if k not in ("stream", "stream_options")}),
        _openai_chat_rules(body["messages"]),
    )


def _openai_chat_rules(messages: list[Any]) -> str | None:
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return f"tool_call_ids did not have response messages: {waiting}"
        if message["role"] == "assistant":
            waiting = [call["id"] for call in message.get("tool_calls") or ()]
            if any(len(name) > 40 for name in waiting):
                return "tool_calls.id: string too long, maximum length 40"
            if message.get("content") is None and not waiting:
                return "assistant message without content and tool calls"
    return f"tool_call_ids did not have response messages: {waiting}" if waiting else None


def openai_responses_refusal(body: Body) -> str | None:
    schema = _schema("openai", "openai.types.responses.response_create_params", "ResponseCreateParamsNonStreaming")
    checked = {k: v for k, v in body.items() if k != "stream"}
    if body.get("tools"):
        checked["tools"] = [{"strict": None, **t} if t["type"] == "function" else t for t in body["tools"]]
    if not isinstance(body["input"], str):
        checked["input"] = [_with_defaults(item) for item in body["input"]]
    return _first(
        _mismatch(schema, checked),
        _openai_responses_rules(body["input"], follows=body.get("previous_response_id") is not None),
    )


def _with_defaults(item: Any) -> Any:
    """An item with what the schema calls required and the service fills in."""
    if item.get("type") != "message":
        return item
    if item["role"] == "assistant":
        return {"id": "msg_new", "status": "completed", **item}
    if isinstance(item["content"], str):
        return item
    return {**item, "content": [{"detail": "auto", **b} if b["type"] == "input_image" else b for b in item["content"]]}


def _openai_responses_rules(items: Any, *, follows: bool) -> str | None:
    if isinstance(items, str):
        return None
    calls = {i["call_id"] for i in items if i.get("type") == "function_call"}
    results = {i["call_id"] for i in items if i.get("type") == "function_call_output"}
    if results - calls and not follows:
        return f"No tool call found for function call output with call_id {results - calls}."
    if calls - results:
        return f"No tool output found for function call {calls - results}."
    if any(len(name) > 64 for name in calls):
        return "call_id: string too long, maximum length 64"
    return None


# --- Anthropic ---


def anthropic_refusal(body: Body) -> str | None:
    schema = _schema("anthropic", "anthropic.types.message_create_params", "MessageCreateParamsNonStreaming")
    return _first(
        _mismatch(schema, {k: v for k, v in body.items() if k not in ("stream", "betas")}),
        _anthropic_rules(body["messages"]),
    )


def _anthropic_rules(messages: list[Any]) -> str | None:
    if messages[0]["role"] != "user":
        return "messages: first message must use the user role"
    uses: list[str] = []
    for position, message in enumerate(messages):
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks:
            return "messages: all messages must have non-empty content"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return "messages: text content blocks must be non-empty"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if message["role"] == "user":
            if sorted(results) != sorted(uses):
                return f"messages.{position}: `tool_use` ids {uses} without matching `tool_result` blocks ({results})"
            if any(block["type"] == "tool_result" for block in blocks[len(results) :]):
                return "messages: tool_result blocks must come first"
            uses = []
            continue
        if uses:
            return f"messages.{position}: `tool_use` ids were found without `tool_result` blocks"
        uses = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if not all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in uses):
            return "messages: tool_use.id: string should match pattern '^[a-zA-Z0-9_-]+$'"
        served = [block["id"] for block in blocks if block["type"] == "server_tool_use"]
        answered = [block.get("tool_use_id") for block in blocks if block["type"].endswith("_tool_result")]
        if served != answered or not all(name.startswith("srvtoolu_") for name in served):
            return "messages: server tool uses and their results must come together"
        if (
            position == len(messages) - 1
            and blocks[-1]["type"] == "text"
            and blocks[-1]["text"] != blocks[-1]["text"].rstrip()
        ):
            return "messages: final assistant content cannot end with trailing whitespace"
    return f"messages: `tool_use` ids {uses} without `tool_result` blocks" if uses else None


# --- Ollama ---


def ollama_refusal(body: Body) -> str | None:
    if importlib.util.find_spec("ollama") is None:
        return None
    types = import_module("ollama._types")
    known = set(types.ChatRequest.model_fields)
    if body.keys() - known:
        return f"unknown fields: {sorted(body.keys() - known)}"
    try:
        types.ChatRequest.model_validate(dict(body))
    except ValidationError as exc:
        return str(exc)
    for message in body["messages"]:
        unknown = message.keys() - {"role", "content", "images", "thinking", "tool_calls", "tool_name", "tool_call_id"}
        if unknown or not isinstance(message.get("content", ""), str):
            return f"message with {sorted(unknown) or 'content that is not a string'}"
        images = message.get("images") or ()
        if any(not isinstance(image, str) or image.startswith(("data:", "http")) for image in images):
            return "images must be base64"
    for tool in body.get("tools") or ():
        if tool.get("type") != "function" or not tool.get("function", {}).get("name"):
            return f"unknown tool: {tool}"
    return None


# --- Google ---


def google_refusal(body: Body) -> str | None:
    return _first(_google_mismatch(body), _google_rules(body["contents"]))


def _google_mismatch(body: Body) -> str | None:
    if importlib.util.find_spec("google.genai") is None:
        return None
    types: Any = import_module("google.genai.types")
    fields = {
        "contents": list[types.Content],
        "systemInstruction": types.Content,
        "tools": list[types.Tool],
        "toolConfig": types.ToolConfig,
        "safetySettings": list[types.SafetySetting],
        "generationConfig": types.GenerationConfig,
    }
    unknown = body.keys() - fields.keys() - {"model", "cachedContent"}
    if unknown:
        return f"unknown fields: {sorted(unknown)}"
    problems = (_mismatch(TypeAdapter(fields[name]), part) for name, part in body.items() if name in fields)
    return _first(*problems)


_PART_KINDS = {
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
}


def _google_rules(contents: list[Any]) -> str | None:
    calls: list[str] = []
    for content in contents:
        parts = content.get("parts") or []
        if not parts:
            return "contents.parts must not be empty"
        if any(len(_PART_KINDS & part.keys()) != 1 for part in parts):
            return f"each part must hold exactly one kind of data: {[sorted(part) for part in parts]}"
        responses = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
        if content["role"] == "user":
            if sorted(responses) != sorted(calls):
                return f"function responses {responses} must match the function calls {calls} of the turn before"
            calls = []
            continue
        if calls:
            return "a function call turn must be followed by its function responses"
        calls = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
        code = [part for part in parts if "executableCode" in part or "codeExecutionResult" in part]
        if len(code) % 2:
            return "executable code and its result must come together"
    return f"function calls {calls} without responses" if calls else None
