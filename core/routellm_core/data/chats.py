"""The text to route on in a recorded call: of a prompt itself, of messages the last one of the user."""

from __future__ import annotations

import json
from typing import Any

# Fields of a record that its prompt is looked for in; the first that has one counts.
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
)
# Fields that hold the prompt itself: a prompt that happens to be JSON is left as it is.
VERBATIM_FIELDS = frozenset({"prompt", "question", "query", "instruction", "text"})
_USER_ROLES = {"user", "human"}
_ROLES = {*_USER_ROLES, "system", "developer", "assistant", "ai", "tool", "function"}
_TEXT_PARTS = ("text", "input_text")
_TOOL_RESULTS = ("tool_result", "tool_call_response", "function_call_output")


def routed_text(value: Any) -> str | None:
    """The text to route on in a recorded input: a str itself, of messages the last one of the user; None if none."""
    return routed(value) or None


def texts_of_call(record: Any) -> list[str]:
    """The routing texts in a record of no known form: of what stands under ``inputs`` or ``input``, or of it itself."""
    if isinstance(record, dict):
        for holder in ("inputs", "input"):
            if record.get(holder) not in (None, "", [], {}):
                return texts_of_input(parsed(record[holder]))
    return texts_of_input(record)


def texts_of_input(value: Any) -> list[str]:
    """As `routed_text`, of each call that a recorded input holds."""
    return [text for call in _calls(value) if (text := routed(call))]


def _calls(value: Any) -> list[Any]:
    """A recorded input as the only one, or those of a batch: LangSmith keeps calls made together in one run."""
    name, inner = "", value
    if isinstance(value, dict):
        name = "messages" if value.get("messages") else "prompts"
        inner = value.get(name)
    if isinstance(inner, list) and inner:
        # a message may be a list too, of its role and its content
        if isinstance(inner[0], list) and all(isinstance(i, list) and _message(i)[0] not in _ROLES for i in inner):
            return inner
        if isinstance(inner[0], str) and name == "prompts":
            return inner
    return [value]


def routed(value: Any) -> str | None:
    """As `routed_text`, but "" where the user's last message has no text: nothing else may stand in for an image."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            return routed(value[0])  # turns of a conversation, or prompts of one call: the first is the opening
        if len(value) == 1 and isinstance(value[0], list) and _message(value[0])[0] not in _ROLES:
            return routed(value[0])  # LangSmith keeps a batch of conversations
        for item in reversed(value):
            role, content = _message(item)
            if role in _USER_ROLES and not _of_tools(content):
                return content_text(content) or ""
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
        strings = [v for v in value.values() if isinstance(v, str) and v.strip()]
        return strings[0] if len(strings) == 1 and len(value) == 1 else None
    return None


def _message(item: Any) -> tuple[str | None, Any]:
    """Role and content of a message in the forms that LangChain, OpenAI and OpenTelemetry write."""
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str):
        return item[0].lower(), item[1]
    if not isinstance(item, dict):
        return None, None
    if "message" in item and isinstance(item["message"], dict):
        item = item["message"]
    body = item.get("kwargs") if isinstance(item.get("kwargs"), dict) else item.get("data")
    if isinstance(body, dict) and "content" in body:  # LangChain: constructor form, or the older type + data form
        kind = item["id"][-1] if isinstance(item.get("id"), list) and item["id"] else item.get("type", "")
        kind = kind.lower() if isinstance(kind, str) else ""
        return kind.removesuffix("chunk").removesuffix("message"), body["content"]
    role = item.get("role") or (item.get("type") if "content" in item else None)
    content = item.get("content", item.get("parts"))
    return (role.lower(), content) if isinstance(role, str) and content is not None else (None, None)


def content_text(content: Any) -> str | None:
    """Text of a message content: a str, or the text parts of a list."""
    if isinstance(content, list):
        parts = [
            part if isinstance(part, str) else part.get("text") or part.get("content")
            for part in content
            if isinstance(part, str) or (isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS)
        ]
        content = "\n".join(part for part in parts if isinstance(part, str) and part)
    return content if isinstance(content, str) and content.strip() else None


def _of_tools(content: Any) -> bool:
    """Whether a message holds nothing but results of tools, which some providers have the user say."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") in _TOOL_RESULTS for part in content)
    )


def parsed(value: Any) -> Any:
    """A str that holds a JSON object or array, parsed: exports often keep inputs that way."""
    if isinstance(value, str) and value[:1] in "[{" and value.strip():
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def parsed_field(name: str, value: Any) -> Any:
    """As `parsed`, but the prompt itself is left as it is."""
    return value if name.strip().lower() in VERBATIM_FIELDS else parsed(value)
