"""Failover: which errors of one model another model could survive."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

# HTTP statuses that blame this service, now. 400, 401, 403, 404, 413 and 422 blame the request or the key.
_SURVIVABLE_STATUS = frozenset({408, 409, 425, 429, 498, 499}) | frozenset(range(500, 600))
# mistakes in the calling program; another model would meet the same one
_PROGRAMMING_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    MemoryError,
)
# about files on this machine, not about the connection to a model
_LOCAL_FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_BY_NAME = ("Authentication", "PermissionDenied", "BadRequest", "InvalidRequest", "Unauthorized", "Forbidden")
# LangGraph raises these to pause a graph or to leave it for another; they are not errors
_CONTROL_FLOW_BY_NAME = ("GraphBubbleUp",)
_OVERFLOW_BY_NAME = ("ContextOverflow", "ContextWindowExceeded")
_OVERFLOW_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
# what providers write who have neither a class nor a code for it; read only on a refused request (400 or 413).
# This and the patterns below are compiled by `re` when a call has failed: most apps start more often than that.
_OVERFLOW_MESSAGE = (
    r"prompt is too long|maximum context length|exceeds? the (available )?context (window|size|length)"
    r"|input token count .{0,40}exceeds the maximum|too many input tokens|input is too long for requested model"
)
_SURVIVABLE_BY_NAME = ("Timeout", "Connection", "Connect", "RateLimit", "Overloaded", "Unavailable", "InternalServer")


# A client that cannot read a reply often fails by a programming error of its own: `JSONDecodeError`, `IndexError` on
# empty `choices`, `AttributeError` on a web page. The traceback tells such an error from a mistake of the caller.
# These functions are handed a reply, so that whatever fails inside of them, in the same client or in a parser, failed
# at reading it: modules and names as the clients spell them.
_READERS = (
    r"httpx\._models:(json|text|iter_\w+|aiter_\w+)"
    r"|requests\.models:(json|text|iter_\w+)|aiohttp\.client_reqrep:(json|text|read)|botocore\.(parsers|eventstream):\w+"
    # the clients that OpenAI, Anthropic and others generate with the same tool
    r"|\w+\._(legacy_)?response:(_?parse|json)"
    r"|\w+\._streaming:(?!__init__)\w+"
    r"|openai\.lib\._parsing\.\w+:(maybe_)?_?parse_\w+"
    r"|openai\.lib\.streaming\.[\w.]+:(?!__init__|__enter__|__aenter__)\w+"
    r"|langchain_(?!core|routellm)\w+\.[\w.]+:(_create_chat_result|_convert_dict_to_message|_convert_delta_to_\w+"
    r"|_convert_\w*chunk_to_\w+|_construct_lc_result_\w+|_format_output|_chat_response_to_\w+|_response_to_\w+)"
    r"|llama_index\.llms\.[\w.]+:(from_\w+_message\w*|_parse_response_output|update_tool_calls)"
)
# These send a request and read its reply in one function, and what they call builds the request: only an error
# raised in their own lines counts, and only where the reply has come: until then LangChain's clients hold None, and
# those of LlamaIndex nothing, so that None is a reply there.
_SENDERS = (
    r"langchain_(?!core|routellm)\w+\.[\w.]+:_a?(generate|stream)(_responses)?"
    r"|llama_index\.llms\.[\w.]+:(_?a?(chat|complete)|_a?stream_(chat|complete)|gen)"
)
_REPLY_VARIABLES = ("response", "raw_response", "chunk")
# LangChain's own lines: no generation in a result, no chunk in a stream; a `TypeError` there is a bad argument
_RESULT_TAKERS = (
    r"langchain_core\.language_models\.(chat_models:(a?invoke|a?stream|a?generate_from_stream)|chat_model_stream:\w+)"
)
# what may lie between a reader and the line that raised, besides the reader's own package: never the caller's code
_PARSERS = frozenset(
    {"json", "codecs", "encodings", "typing", "pydantic", "pydantic_core", "jiter", "httpx", "openai"}
    | {"langchain_core", "llama_index"}
)


def is_survivable(exc: BaseException) -> bool:
    """Whether the other model may answer after the chosen one failed with `exc` before its first token.

    By the HTTP status that provider clients put on their errors where there is one: time-outs, conflicts, rate
    limits and server errors yes; authentication, permission, not found and bad requests no. Else by class: an answer
    without content, lost connections and time-outs yes; programming errors (`TypeError`, `ValueError`, ...) only where
    a provider's client raised them while it read a reply, and missing local files no; any other `Exception` yes.
    Cancellation and interrupts never, nor what a graph raises to pause.
    """
    if not isinstance(exc, Exception):
        return False
    status = status_of(exc)
    if status is not None:
        return status in _SURVIVABLE_STATUS
    names = [cls.__name__ for cls in type(exc).__mro__ if cls is not object]
    if isinstance(exc, _LOCAL_FILE_ERRORS):
        return False
    if any(part in name for name in names for part in (*_REFUSED_BY_NAME, *_CONTROL_FLOW_BY_NAME)):
        return False
    if isinstance(exc, OSError) or any(part in name for name in names for part in _SURVIVABLE_BY_NAME):
        return True
    return not isinstance(exc, _PROGRAMMING_ERRORS) or _is_raised_at_reading(exc)


def is_overflow(exc: BaseException) -> bool:
    """Whether a provider refused a prompt because it is too long for the model; another model may have room for it."""
    if not isinstance(exc, Exception):
        return False
    codes = set(_codes(exc))
    if codes & _OVERFLOW_CODES:
        return True
    if codes & _FILTER_CODES:  # first: langchain-openai goes by the message, which may quote the prompt
        return False
    if any(part in cls.__name__ for cls in type(exc).__mro__ for part in _OVERFLOW_BY_NAME):
        return True
    # any other code names another cause
    if codes or status_of(exc) not in (400, 413):
        return False
    return re.search(_OVERFLOW_MESSAGE, str(exc), re.IGNORECASE) is not None


def _codes(exc: Exception) -> Iterator[str]:
    body = getattr(exc, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    for code in (
        getattr(exc, "code", None),
        *(holder.get("code") for holder in (body, inner) if isinstance(holder, dict)),
    ):
        if isinstance(code, str) and code and not code.isdigit():
            yield code


def _is_raised_at_reading(exc: Exception) -> bool:
    """Whether a provider's client raised `exc` while it read a reply: from the innermost call outwards."""
    inside: set[str] = set()
    for frame, _ in reversed(list(traceback.walk_tb(exc.__traceback__))):
        module = str(frame.f_globals.get("__name__", ""))
        call, package = f"{module}:{frame.f_code.co_name}", module.partition(".")[0]
        if not inside:
            if re.fullmatch(_RESULT_TAKERS, call):
                return not isinstance(exc, TypeError)
            if re.fullmatch(_SENDERS, call):
                held = [frame.f_locals[name] for name in _REPLY_VARIABLES if name in frame.f_locals]
                return any(reply is not None or package == "llama_index" for reply in held)
        inside.add(package)
        if re.fullmatch(_READERS, call) and inside <= _PARSERS | {package}:
            return True
    return False


def status_of(exc: BaseException) -> int | None:
    """The HTTP status that a client put on its error, where it means a failure; else None."""
    for holder in (exc, getattr(exc, "response", None)):
        for attribute in ("status_code", "http_status", "status", "code"):
            value = getattr(holder, attribute, None)
            if not isinstance(value, int) or isinstance(value, bool) or not 100 <= value < 600:
                continue
            # a reply with status 200 that could not be read: the status says nothing of the error
            if not 200 <= value < 300:
                return value
    return None
