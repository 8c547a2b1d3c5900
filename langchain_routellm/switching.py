"""What a conversation loses, and what it keeps, when it moves from one model to another.

The switch is automatic here, so whatever the next model would refuse has to go, for any two models: two of one class
too. An answer that another model gave is rewritten into what every chat API takes: its text, its tool calls, and in
words what its provider's own tools did. An answer that the model gave itself goes back to it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_routellm.answers import KEY
from langchain_routellm.messages import holds_tool_results
from langchain_routellm.sides import (
    bound_kwargs,
    chat_model_of,
    model_name_of,
    model_name_on,
    provider_of,
    replaced_model,
    setup_of,
)
from routellm_core.checks import Side
from routellm_core.policy.setups import name_likeness
from routellm_core.policy.tiers import at_level

# A provider signs or encrypts its model's reasoning, and refuses what it has not signed.
_REASONING_BLOCKS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_content"})
_SIGNATURES = ("signature", "thought_signature", "thoughtSignature", "encrypted_content")
# What belongs to one server, or to the answer as its provider stores it.
_OF_ONE_ANSWER = ("annotations", "citations", "id", "index", "logprobs", "phase")
_KWARGS_OF_ONE_ANSWER = (
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking",
    "signature",
    "__gemini_function_call_thought_signatures__",
    "__openai_function_call_ids__",
    "audio",
    "function_call",
    "refusal",
    "tool_calls",
    "tool_outputs",
)
# A message holds its tool calls a second time, apart from its content.
_TOOL_CALL_BLOCKS = frozenset(
    {"tool_use", "tool_call", "tool_call_chunk", "function_call", "custom_tool_call", "function_call_signature"}
)
# Blocks that only one provider's API has.
_PROVIDERS_OF_BLOCKS = {
    "thinking": "anthropic",
    "redacted_thinking": "anthropic",
    "server_tool_use": "anthropic",
    "web_search_tool_result": "anthropic",
    "function_call": "openai",
    "web_search_call": "openai",
    "executable_code": "google",
    "code_execution_result": "google",
}
# Forms of images and files that one API has; LangChain's own and those of chat completions are read by every client.
_APIS_OF_INPUTS = {
    "input_text": "responses",
    "input_image": "responses",
    "input_file": "responses",
    "document": "anthropic",
    "media": "google",
}
_MEDIA = {"image": "image", "image_url": "image", "image_generation_call": "image", "media": "file"}
_MEDIA |= {"audio": "audio", "video": "video", "file": "file"}
# Names that one provider has in traces and on answers.
_PROVIDERS = {
    "amazon_bedrock": "bedrock",
    "azure": "openai",
    "azure_openai": "openai",
    "bedrock_converse": "bedrock",
    "google_genai": "google",
}
# Providers whose API is known here: one's answers never stem from another's.
_KNOWN_PROVIDERS = frozenset({"anthropic", "google", "ollama", "openai"})
_CACHE_MARKERS = ("cache_control",)
# models that read cache markers in the place where their middleware puts them
_READS_CACHE_MARKERS = frozenset({"anthropic-chat", "anthropic-bedrock-chat", "anthropic-chat-vertexai"})
# parts of what a provider's tool did that say nothing to a reader
_NOT_FOR_READERS = frozenset(
    {*_SIGNATURES, "caller", "data", "encrypted_index", "file_id", "id", "index", "page_age", "status"}
    | {"tool_call_id", "tool_use_id", "type"}
)

M = TypeVar("M", bound=BaseMessage)


# --- messages ---


def adapted(messages: Sequence[BaseMessage], side: Side, model: Any, other: Any, level: int = 0) -> list[BaseMessage]:
    """The messages as `model` takes them, in a conversation that other models may have taken part in.

    Answers that another model gave lose thinking, signatures, ids and blocks of its provider's own tools, which are
    described in words instead; where both sides are one model with different settings, its answers are never another's.
    Images and files that stand in another provider's form are brought into LangChain's own. Cache markers go when only
    the model of the other side reads them. No message is written to, and messages that need no change are passed on as
    they are.

    Args:
        messages: The conversation.
        side: The side that `model` is on.
        model: Answers now.
        other: The model of the other side.
        level: Of the routing that the two are the sides of, where routed models are nested.
    """
    provider = _provider(provider_of(model))
    provider = provider if provider in _KNOWN_PROVIDERS else None
    drop_markers = drops_cache_markers(model, other)
    out: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage):
            if not _may_go_back(message, side, model, other, level):
                message = _portable(message, provider)
        elif provider is not None and not isinstance(message.content, str):
            message = _standard_input(message, provider)
        out.append(without_cache_markers(message) if drop_markers else message)
    return out


def _may_go_back(message: AIMessage, side: Side, model: Any, other: Any, level: int) -> bool:
    """Whether an answer can be sent to `model` as it is: the model wrote it, or there is no reason against it."""
    metadata = message.response_metadata
    author, ours, theirs = (
        _provider(n) for n in (metadata.get("model_provider"), provider_of(model), provider_of(other))
    )
    if author != ours and _KNOWN_PROVIDERS.issuperset({author, ours}):
        return False
    name = model_name_on(message)
    if name is not None:
        likeness, others = name_likeness(name, model_name_of(model)), name_likeness(name, model_name_of(other))
        if likeness != others:
            return likeness > others
    decision = at_level(metadata.get(KEY), level)
    if isinstance(decision, Mapping) and _is_one_model(model, other):
        return decision.get("failover") != decision.get("model")
    if isinstance(decision, Mapping):
        # a side that failed did not write the answer, even if the decision names it
        return decision.get("model") == side and decision.get("failover") != side
    if author is not None and ours is not None and ours != theirs:
        return author == ours
    # Nothing names the author, but the blocks may reveal it.
    kinds = _kinds(message)
    if ours in _KNOWN_PROVIDERS and any(_PROVIDERS_OF_BLOCKS.get(kind, ours) != ours for kind in kinds):
        return False
    profile = getattr(chat_model_of(model), "profile", None) or {}
    return not ("reasoning" in kinds and profile.get("reasoning_output") is False)


def _is_one_model(model: Any, other: Any) -> bool:
    """Whether both sides are one model with different settings, such as two reasoning efforts."""
    ours, theirs = setup_of(model), setup_of(other)
    if ours is None or theirs is None or provider_of(model) != provider_of(other):
        return False
    names = [bound_kwargs(side).get("model", setup.name) for side, setup in ((model, ours), (other, theirs))]
    return names[0] == names[1] and ours.url == theirs.url and type(chat_model_of(model)) is type(chat_model_of(other))


def _provider(name: Any) -> str | None:
    return _PROVIDERS.get(name, name) if isinstance(name, str) else None


def _kinds(message: BaseMessage) -> set[str]:
    content = message.content if isinstance(message.content, list) else ()
    return {str(block.get("type")) for block in content if isinstance(block, dict)}


def _portable(message: AIMessage, provider: str | None) -> AIMessage:
    """An answer with only what every chat API takes."""
    update: dict[str, Any] = {}
    if not isinstance(message.content, str):
        content = [part for block in message.content for part in _portable_blocks(block, provider)]
        if content != message.content:
            update["content"] = content or ""
    if message.additional_kwargs.keys() & set(_KWARGS_OF_ONE_ANSWER):
        update["additional_kwargs"] = _without(message.additional_kwargs, _KWARGS_OF_ONE_ANSWER)
    if message.response_metadata:  # it describes the form of the content, and contains ids of the provider
        update["response_metadata"] = {}
    if message.id is not None and not message.id.startswith("lc_"):
        update["id"] = None
    return message.model_copy(update=update) if update else message


def _portable_blocks(block: Any, provider: str | None) -> Iterator[Any]:
    if not isinstance(block, dict):
        yield _note(block)
        return
    kind = block.get("type")
    if kind == "non_standard" and isinstance(block.get("value"), dict):
        yield from _portable_blocks(block["value"], provider)
    elif kind in _REASONING_BLOCKS or kind in _TOOL_CALL_BLOCKS:
        return
    elif kind in ("text", "output_text"):
        if block.get("text"):
            block = _without(block, (*_SIGNATURES, *_OF_ONE_ANSWER), ("extras",))
            block = _without(block, ("extras",)) if provider == "openai" else block  # a field that it refuses
            yield block if kind == "text" else {**block, "type": "text"}
    elif kind == "refusal":
        yield {"type": "text", "text": str(block.get("refusal") or "")}
    elif kind in _MEDIA:
        # only Google's API takes an assistant's own image
        takes = provider in (None, "google") and (block.get("base64") or block.get("image_url"))
        yield _without(block, (*_SIGNATURES, *_OF_ONE_ANSWER), ("extras",)) if takes else _note(f"[{_MEDIA[kind]}]")
    else:
        name = block.get("name") or str(kind).removesuffix("_call").removesuffix("_tool_result")
        words = " ".join(_readable(block))
        yield _note(f"[{name}] {words}" if words else f"[{name}]")


def _note(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _readable(value: Any) -> Iterator[str]:
    """The words in a block of a provider's own tool, such as a query, the titles and addresses found, or an output."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in _NOT_FOR_READERS and key != "name":
                yield from _readable(part)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for part in value:
            yield from _readable(part)


def _standard_input(message: M, provider: str) -> M:
    """A message with images and files of another provider's form in LangChain's own form, which each client reads."""
    assert isinstance(message.content, list)
    content: list[Any] = []
    for block in message.content:
        kind = block.get("type") if isinstance(block, dict) else None
        native = "anthropic" if kind == "image" and "source" in block else _APIS_OF_INPUTS.get(str(kind))
        if native in (None, provider):
            content.append(block)
        elif kind == "input_text":
            content.append({"type": "text", "text": block["text"]})  # type: ignore[index]
        else:
            (standard,) = HumanMessage([_chat_form(block)]).content_blocks
            content.append(block if standard["type"] == "non_standard" else standard)
    if all(a is b for a, b in zip(content, message.content, strict=True)):
        return message
    return message.model_copy(update={"content": content})


def _chat_form(block: Any) -> Any:
    """A block of the Responses API in the older form, which LangChain can translate; any other one as it is."""
    if block["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": block.get("image_url")}}
    if block["type"] == "input_file":
        return {"type": "file", "file": {k: v for k, v in block.items() if k != "type"}}
    return block


# --- thinking ---


def must_not_think(messages: Sequence[BaseMessage], side: Any) -> bool:
    """Whether a model would refuse these messages while it thinks.

    Anthropic's API wants a turn that holds results of tools to begin with the thinking of its own model. A turn that
    another model began has no such thinking.

    Args:
        messages: The conversation as the model would be sent it.
        side: The model, with whatever wraps it.
    """
    model = chat_model_of(side)
    settings = (getattr(model, "thinking", None), bound_kwargs(side).get("thinking"))
    if not any(isinstance(s, Mapping) and s.get("type") in ("enabled", "adaptive") for s in settings):
        return False
    results = False
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            opening = message.content[0] if message.content and isinstance(message.content, list) else None
            thinks = isinstance(opening, dict) and opening.get("type") in _REASONING_BLOCKS
            return results and not thinks
        results = results or holds_tool_results(message)
    return False


def without_thinking(side: Any) -> Any:
    """A copy of a side whose model does not think."""
    quiet = replaced_model(side, lambda model: model.model_copy(update={"thinking": None}))
    return quiet.bind(thinking={"type": "disabled"}) if "thinking" in bound_kwargs(side) else quiet


# --- prompt-cache markers ---


def reads_cache_markers(model: Any) -> bool:
    """Whether ``cache_control`` means something to this model, rather than being refused."""
    return getattr(chat_model_of(model), "_llm_type", None) in _READS_CACHE_MARKERS


def drops_cache_markers(model: Any, other: Any) -> bool:
    """Whether cache markers in a conversation were meant for `other` and would be refused by `model`."""
    return reads_cache_markers(other) and not reads_cache_markers(model)


def without_cache_markers(message: M) -> M:
    """The message without prompt-cache markers; the same object if there are none."""
    if isinstance(message.content, str):
        return message
    content = [_without(block, _CACHE_MARKERS, ("extras", "metadata")) for block in message.content]
    return message if content == message.content else message.model_copy(update={"content": content})


def tool_without_cache_markers(tool: Any) -> Any:
    """A tool, or its schema, without prompt-cache markers; the same object if there are none."""
    if isinstance(tool, dict):
        return _without(tool, _CACHE_MARKERS, ("extras",))
    extras = getattr(tool, "extras", None)
    if isinstance(extras, dict) and extras.keys() & set(_CACHE_MARKERS):
        return tool.model_copy(update={"extras": _without(extras, _CACHE_MARKERS) or None})
    return tool


def arguments_without_cache_markers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call without prompt-cache markers."""
    return {name: value for name, value in arguments.items() if name not in _CACHE_MARKERS}


def _without(value: Any, keys: Sequence[str], nested: Sequence[str] = ()) -> Any:
    """A dict without these keys, here and in the dicts under `nested`; the same object if it has none of them."""
    if not isinstance(value, dict):
        return value
    out = {k: v for k, v in value.items() if k not in keys}
    for name in nested:
        if isinstance(out.get(name), dict):
            out[name] = _without(out[name], keys)
    return value if out == value else out
