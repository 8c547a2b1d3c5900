"""The text that a recorded call is routed on: the prompt itself, or the last user message of a conversation."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

# Fields in which to look for the prompt of a record; the first one that has a text is used.
PROMPT_FIELDS = (
    "messages",
    "prompt",
    "question",
    "query",
    "instruction",
    "text",
    "input",
    "content",
    "turns",
    "prompts",
    "contents",
)
# Fields that hold the prompt itself: a prompt that happens to be JSON is not parsed.
VERBATIM_FIELDS = frozenset({"prompt", "question", "query", "instruction", "text"})
_USER_ROLES = {"user", "human"}
_ROLES = {*_USER_ROLES, "system", "developer", "assistant", "ai", "tool", "function"}
_TEXT_PARTS = ("text", "input_text")
# A list of objects, or an object, as Python writes it: what pandas puts into a CSV cell.
_PYTHON = re.compile(r"\[?\s*\{\s*['\"]")
# Between the items of a NumPy array there is a line end instead of a comma; inside of a text it would be escaped.
_ARRAY_ITEMS = re.compile(r"\}\s*\n\s*\{")
_CHAT = re.compile(r"chat|completion|message|response", re.IGNORECASE)
_NO_CHAT = re.compile(r"embed|image|audio|transcri|speech|moderation|rerank", re.IGNORECASE)
_TOOL_RESULTS = ("tool_result", "tool_call_response", "function_call_output")


def routed_text(value: Any) -> str | None:
    """Return the text to route on: a str itself, the last user message of a list of messages, or None without any."""
    return routed(value) or None


def texts_of_call(record: Any) -> list[str]:
    """Return the routing texts of a record of unknown form: those under ``inputs`` or ``input``, or of the record."""
    if isinstance(record, dict):
        for holder in ("inputs", "input"):
            if record.get(holder) not in (None, "", [], {}):
                return texts_of_input(parsed(record[holder]))
    return texts_of_input(record)


def texts_of_input(value: Any) -> list[str]:
    """Like `routed_text`, for each call that a recorded input holds."""
    return [text for call in _calls(value) if (text := routed(call))]


def _calls(value: Any) -> list[Any]:
    """Split a recorded input into calls: LangSmith stores the calls of one batch as a single run."""
    name, inner = "", value
    if isinstance(value, dict):
        name = "messages" if value.get("messages") else "prompts"
        inner = value.get(name)
    if isinstance(inner, list) and inner:
        # a message can be a list as well: its role and its content
        if isinstance(inner[0], list) and all(isinstance(i, list) and _message(i)[0] not in _ROLES for i in inner):
            return inner
        if isinstance(inner[0], str) and name == "prompts":
            return inner
    return [value]


def routed(value: Any) -> str | None:
    """Like `routed_text`, but "" if the last user message has no text: no other text may replace an image."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            return routed(value[0])  # turns of a conversation, or prompts of one call: the first one opens it
        if len(value) == 1 and isinstance(value[0], list) and _message(value[0])[0] not in _ROLES:
            return routed(value[0])  # LangSmith stores a batch of conversations
        for item in reversed(value):
            role, content = _message(item)
            if role in _USER_ROLES and not _of_tools(content):
                return content_text(content) or ""
        if value and all(isinstance(item, dict) and item.keys() == {"content"} for item in value):
            return content_text(value[0]["content"])  # turns without roles, as in the questions of Arena-hard
        return None
    if isinstance(value, dict):
        role, content = _message(value)
        if role is not None:
            return (content_text(content) or "") if role in _USER_ROLES else None
        for key in PROMPT_FIELDS:
            if value.get(key) not in (None, "", []):
                text = routed(parsed_field(key, value[key]))
                if text is not None:
                    return text
        if value.keys() == {"args", "kwargs"}:  # the arguments of a function, as Langfuse's decorator records them
            return routed(value["kwargs"]) or routed(value["args"])
        strings = [v for v in value.values() if isinstance(v, str) and v.strip()]
        return strings[0] if len(strings) == 1 and len(value) == 1 else None
    return None


def user_turns(conversation: Any) -> list[str]:
    """The texts of all turns of the user in a conversation; none if it is no list of messages."""
    turns = []
    for item in conversation if isinstance(conversation, list) else ():
        role, content = _message(item)
        if role in _USER_ROLES and not _of_tools(content) and (text := content_text(content)):
            turns.append(text)
    return turns


def _message(item: Any) -> tuple[str | None, Any]:
    """Return role and content of a message in the forms that LangChain, OpenAI and OpenTelemetry write."""
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str):
        return item[0].lower(), item[1]
    if not isinstance(item, dict):
        return None, None
    if "message" in item and isinstance(item["message"], dict):
        item = item["message"]
    elif "message.role" in item:  # columns of a table of spans
        item = {key.removeprefix("message."): value for key, value in item.items()}
    body = item.get("kwargs") if isinstance(item.get("kwargs"), dict) else item.get("data")
    if isinstance(body, dict) and "content" in body:  # LangChain: constructor form, or the older type + data form
        kind = item["id"][-1] if isinstance(item.get("id"), list) and item["id"] else item.get("type", "")
        kind = kind.lower() if isinstance(kind, str) else ""
        return kind.removesuffix("chunk").removesuffix("message"), body["content"]
    role = item.get("role") or item.get("from") or (item.get("type") if "content" in item else None)
    content = next((item[name] for name in ("content", "value", "parts", "contents") if name in item), None)
    return (role.lower(), content) if isinstance(role, str) and content is not None else (None, None)


def content_text(content: Any) -> str | None:
    """Return the text of a message's content, which is a str or a list of parts; None if it has no text."""
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else part.get("text") or part.get("content")
            for part in map(_part, content)
            if isinstance(part, str) or (isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS)
        ]
        content = "\n".join(part for part in parts if isinstance(part, str) and part)
    return content if isinstance(content, str) and content.strip() else None


def _part(part: Any) -> Any:
    """A part of a message as OpenAI writes it; OpenInference writes {"message_content": {"type": ..., "text": ...}}."""
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("message_content"), dict):
        return part["message_content"]
    return {key.removeprefix("message_content."): value for key, value in part.items()}


def _of_tools(content: Any) -> bool:
    """Whether a message holds only tool results, which some providers send in the user's role."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") in _TOOL_RESULTS for part in content)
    )


def is_no_chat(operation: Any) -> bool:
    """Whether a recorded call, by its path or type, is of another kind than a chat or completion: an embedding, say."""
    if not isinstance(operation, str) or _CHAT.search(operation):  # a deployment may be called "embedded-bot"
        return False
    return _NO_CHAT.search(operation) is not None


def parsed(value: Any) -> Any:
    """Parse a str that holds a JSON object or array, or objects as Python writes them, as exports often store inputs;
    return other values unchanged."""
    if isinstance(value, str) and value[:1] in "[{" and value.strip():
        try:
            return json.loads(value)
        except ValueError:
            return _literal(value)
    return value


def _literal(text: str) -> Any:
    if not _PYTHON.match(text):
        return text
    try:
        value = ast.literal_eval(_ARRAY_ITEMS.sub("}, {", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, dict | list) else text


def parsed_field(name: str, value: Any) -> Any:
    """Like `parsed`, but leave fields alone that hold the prompt itself."""
    return value if name.strip().lower() in VERBATIM_FIELDS else parsed(value)
