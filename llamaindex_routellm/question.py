"""What a LlamaIndex call is routed on: the person's question, without what an engine or an agent wraps around it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.prompts import BasePromptTemplate, SelectorPromptTemplate
from llama_index_instrumentation.dispatcher import active_instrument_tags

from llamaindex_routellm.watch import best_score_for, running
from routellm_core.errors import ConfigurationError
from routellm_core.policy.routing import FORCE_SETTING, THRESHOLD_SETTING, CallSettings, RoutedOn, Routing

P = TypeVar("P", bound=BasePromptTemplate)

_PREFIX = "routellm_"

# Names under which LlamaIndex's own prompts carry the question of the person.
_QUESTION_VARIABLES = ("query_str", "question", "query")
_CONTEXT_VARIABLES = ("context_str", "context_msg", "context_messages")

# What LlamaIndex itself puts around a question: a RelevancyEvaluator, and engines that try again.
_AROUND_A_QUESTION = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"Question: (?P<question>.+?)\nResponse: .*",
        r"(?P<question>.+?)\n-{16}\nHere is a previous bad answer\.\n.*",
        r"Here is a previous bad answer\.\n.*\nNow answer the question\.\n(?P<question>.+)",
    )
)
# The state that AgentWorkflow puts around the message of the person (its default state_prompt).
_STATE = re.compile(r"Current state:\n.*?\n\nCurrent message:\n(?P<message>.*?)\n?", re.DOTALL)
# What an agent with output_cls= turns its whole conversation into, so that a model can format the answer.
_TRANSCRIPT = "<current_conversation>\n"
_TRANSCRIPT_TAG = re.compile(r"\t<(?P<role>\w+)>\n|\t\t<message>(?P<text>.*)</message>\n", re.DOTALL)
# User messages that an agent wrote: how they begin, and what the assistant message before them must hold.
_AGENT_WRITTEN = (
    ("Observation:", "Action:"),
    ("Result of executing the code given:", "<execute>"),
    ("Error while parsing the output:", ""),
    ("FAILURE: Your previous response was empty.", ""),
)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was retrieved for the question of a query engine; the second argument of a `route_on` hook.

    Attributes:
        question: The question as the query engine was asked it.
        best_score: Highest score of the nodes that the answer is made from; None when they have none, or when the
            call is not made for a response synthesizer.
        context_length: Characters of context in this call's prompt; None when the prompt has no context.
    """

    question: str
    best_score: float | None = None
    context_length: int | None = None


def retrieval_of_prompt(prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]) -> Retrieval | None:
    """The question among the arguments of a prompt template, and what is known of its context; None without one.

    A template without a question is a step towards the answer to the question that an engine is working on.
    """
    variables = {**getattr(prompt, "kwargs", {}), **prompt_args}
    asked = running()
    candidates = [*(variables.get(name) for name in _QUESTION_VARIABLES), None if asked is None else asked.question]
    question = next((value for value in candidates if isinstance(value, str) and value.strip()), None)
    if question is None:
        return None
    contexts = [variables[name] for name in _CONTEXT_VARIABLES if variables.get(name) is not None]
    length = sum(map(_length, contexts)) if contexts else None
    return Retrieval(_bare(question), best_score_for(question), length)


def mapped_once(prompt: P) -> P:
    """A copy of the prompt whose function mappings run once, however often it is filled in.

    The router reads the filled prompt, and then the model fills it in again. A mapping may be a retriever of examples
    that costs money each time.
    """
    if isinstance(prompt, SelectorPromptTemplate):
        conditionals = prompt.conditionals or ()
        if not any(part.function_mappings for part in (prompt.default_template, *(part for _, part in conditionals))):
            return prompt
        default = mapped_once(prompt.default_template)
        mapped = [(condition, mapped_once(part)) for condition, part in conditionals]
        return prompt.model_copy(update={"default_template": default, "conditionals": mapped})
    if not prompt.function_mappings:
        return prompt
    mappings = {name: _once(function) for name, function in prompt.function_mappings.items()}
    return prompt.model_copy(update={"function_mappings": mappings})


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    found: list[Any] = []

    def mapping(**kwargs: Any) -> Any:
        if not found:
            found.append(function(**kwargs))
        return found[0]

    return mapping


def retrieval_of_messages(messages: Sequence[ChatMessage]) -> Retrieval | None:
    """The question that an engine is working on, if it is in the messages with other text around it."""
    asked = running()
    if asked is None:
        return None
    texts = [message.content or "" for message in reversed(messages)]
    said = next((text for m, text in zip(reversed(messages), texts, strict=True) if m.role == MessageRole.USER), "")
    while asked is not None:
        if asked.question == said:
            return None  # nothing is around it: these are the turns of a conversation
        around = next((text for text in texts if asked.question in text), None) if asked.question.strip() else None
        if around is not None:
            question = asked.question
            return Retrieval(_bare(question), best_score_for(question), len(around) - len(question))
        asked = asked.outer
    return None


def call_settings(
    routing: Routing, *sources: dict[str, Any], messages: Callable[[], Sequence[ChatMessage]]
) -> CallSettings:
    """Take the ``routellm_*`` entries out of a call's keyword arguments; what is left goes to the model.

    Engines, chat engines and agents pass no keyword arguments on. Around those, LlamaIndex's own
    ``instrument_tags({"routellm_force": "strong", "thread_id": "42"})`` has the same effect.

    Args:
        routing: Its stickiness and its limits name the tags that identify the conversation and the user.
        *sources: Keyword arguments of the call; their ``routellm_*`` entries are removed.
        messages: Gives the messages of the call, for a ``sticky=`` that is a function of them.

    Raises:
        ConfigurationError: An unknown ``routellm_*`` name, or a value that is not allowed.
    """
    conversation = "thread_id" if routing.sticky is None else routing.sticky.key
    allowed = _settings_by_argument(conversation, routing.limit_keys, routing.user_key)
    tags = active_instrument_tags.get()
    given = {name: tags[name] for name in allowed.values() if tags.get(name) is not None}
    for source in sources:
        for name in [name for name in source if name.startswith(_PREFIX)]:
            if name not in allowed:
                raise ConfigurationError(f"{name}={source[name]!r:.80}: expected one of {', '.join(allowed)}")
            value = source.pop(name)
            if value is not None:
                given[allowed[name]] = value
    return routing.settings(given, messages)


@lru_cache(maxsize=64)
def _settings_by_argument(conversation: str, limits: frozenset[str], user: str | None) -> dict[str, str]:
    """The settings that a call may have, by the names of its arguments; in tags, identifiers have no prefix.

    Args:
        conversation: The setting that identifies the conversation.
        limits: Those that limits ask for.
        user: The one that a log asks for, to tell whose call it is.
    """
    allowed = {THRESHOLD_SETTING: THRESHOLD_SETTING, FORCE_SETTING: FORCE_SETTING}
    allowed |= {_PREFIX + key: key for key in (conversation, *sorted(limits), user) if key is not None}
    allowed.setdefault(_PREFIX + "thread_id", conversation)
    return allowed


def routed_on(routing: Routing, messages: Sequence[ChatMessage], retrieval: Retrieval | None) -> RoutedOn:
    """What a call is routed on: what the user's `route_on` returns, else the question, else the last human turns.

    In a query engine the hook gets the question, not the prompt around it. If it takes a second argument, that is the
    `Retrieval`.
    """
    hook = routing.route_on
    if hook is None:
        if retrieval is not None:
            return retrieval.question
        turns = human_turns(messages)
        # where frameworks wrote all of them, they are what there is
        return ([part for turn in turns if (part := routing.human_part(turn))] or turns)[-routing.lookback :]
    if retrieval is not None:
        messages = [ChatMessage(role=MessageRole.USER, content=retrieval.question)]
    found: RoutedOn = hook(messages, retrieval) if _takes_two(hook) else hook(messages)
    return found


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    required = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(required) == 2


def _bare(question: str) -> str:
    """A question without what LlamaIndex has put around it."""
    found = next((match for pattern in _AROUND_A_QUESTION if (match := pattern.fullmatch(question))), None)
    return question if found is None else found["question"]


def human_turns(messages: Sequence[ChatMessage]) -> list[str]:
    """What the person said, in order: user messages without those that an agent wrote in the person's name.

    The observations of a ReAct agent, the results that a CodeAct agent feeds back and their requests to try again are
    left out, the state that an AgentWorkflow puts around a message is removed, and turns without text are skipped.
    Without any user message, the result is the last text of a message that is not a tool result, or "".
    """
    turns: list[str] = []
    before, answered, human = "", False, False
    for message in messages:
        text = message.content or ""
        if message.role == MessageRole.USER:
            human = True
            if text.startswith(_TRANSCRIPT):
                turns += human_turns(_of_transcript(message))
            elif not _agent_written(text, before):
                state = _STATE.fullmatch(text)
                turn = state["message"] if state else text
                # an agent that tries again repeats the message; a person who does so after an answer speaks again
                if answered or not turns or turns[-1] != turn:
                    turns.append(turn)
            answered = False
        by_assistant = message.role == MessageRole.ASSISTANT
        answered = answered or by_assistant
        before = text if by_assistant else ""
    turns = [turn for turn in turns if turn.strip()]
    if turns or human:
        return turns or [""]
    others = (m.content or "" for m in reversed(messages) if m.role not in (MessageRole.TOOL, MessageRole.FUNCTION))
    return [next((text for text in others if text.strip()), "")]


def _of_transcript(message: ChatMessage) -> list[ChatMessage]:
    """The conversation behind a transcript, which has one block for each tag; texts only."""
    messages: list[ChatMessage] = []
    for block in message.blocks:
        tag = _TRANSCRIPT_TAG.fullmatch(block.text) if isinstance(block, TextBlock) else None
        if tag is None:
            continue
        if tag["role"]:
            messages.append(ChatMessage(role=MessageRole(tag["role"]), blocks=[]))
        elif messages:
            messages[-1].blocks.append(TextBlock(text=tag["text"]))
    return messages


def _agent_written(text: str, answer_before: str) -> bool:
    return bool(answer_before) and any(text.startswith(head) and sign in answer_before for head, sign in _AGENT_WRITTEN)


def _length(context: Any) -> int:
    if isinstance(context, ChatMessage):
        return len(context.content or "")
    if isinstance(context, Sequence) and not isinstance(context, str):
        return sum(map(_length, context))
    return len(str(context))
