"""Agents: routed on the person's task, and on nothing else all through the loop."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.agent.react.formatter import ReActChatFormatter
from llama_index.core.agent.react.output_parser import ReActOutputParser
from llama_index.core.agent.workflow import AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM, routing_decision
from routellm_core import RoutingDecision
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM, Reply, SurvivableError, fake
from tests.support.routers import ScriptedRouter

# Building a workflow agent, LlamaIndex's workflows look at every attribute of a pydantic model, deprecated ones too.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__.*` attribute is deprecated:pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step"),
]

EASY, HARD = "p=0.1 What is 2 + 3, in capitals?", "p=0.9 What is 2 + 3, and why is arithmetic consistent?"
TASKS = pytest.mark.parametrize(("task", "side"), [(EASY, "weak"), (HARD, "strong")], ids=["easy", "hard"])
streaming_or_not = pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "plain"])


def add(a: int, b: int) -> str:
    """Add two numbers."""
    # a tool whose answer would change the route, were it taken for something that the person said
    return f"p=0.5 The sum is {a + b}."


def shout(text: str) -> str:
    """Say it in capitals."""
    return text.upper()


def sides(llm: RouteLLM) -> dict[str, FakeLLM]:
    return {"strong": llm.strong, "weak": llm.weak}  # type: ignore[dict-item]


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=3000, tokenizer_fn=str.split)


def assert_stable(llm: RouteLLM, router: ScriptedRouter, events: Recorder, task: str, side: str, calls: int) -> None:
    """`calls` calls of one side, each decided once, and nothing but the task scored."""
    other = "weak" if side == "strong" else "strong"
    assert len(sides(llm)[side].seen) == calls
    assert sides(llm)[other].seen == []
    assert set(router.prompts) == {task}
    assert [d["model"] for d in events.decisions] == [side] * calls
    for name in ("LLMChatStartEvent", "LLMChatEndEvent"):
        # a StructuredLLM around it has events of its own
        assert len([e for e in events.of(name) if "routellm" in e.tags]) == calls
    for seen in sides(llm)[side].seen:
        assert all("routellm" not in str(m.additional_kwargs) for m in seen.messages)
        assert not any(key.startswith("routellm") for key in seen.kwargs)


class TestFunctionAgent:
    @TASKS
    @streaming_or_not
    async def test_a_loop_with_parallel_tools(
        self, task: str, side: str, streaming: bool, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(
            Reply(tools=[("add", {"a": 2, "b": 3}), ("shout", {"text": "hello"})]),
            Reply(tools=[("shout", {"text": "five"})]),
            "FIVE it is",
        )
        agent = FunctionAgent(llm=llm, tools=[add, shout], streaming=streaming, system_prompt="p=0.5 You help.")
        result: Any = await agent.run(task, memory=memory())
        assert str(result) == "FIVE it is"
        assert [c.tool_name for c in result.tool_calls] == ["add", "shout", "shout"]
        assert_stable(llm, router, events, task, side, 3)
        results = [m for m in sides(llm)[side].seen[1].messages if m.role == MessageRole.TOOL]
        assert [m.content for m in results] == ["p=0.5 The sum is 5.", "HELLO"]

    @TASKS
    async def test_structured_answer(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        class Sum(BaseModel):
            """A sum."""

            value: int

        chosen = sides(llm)[side]
        chosen.reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five", Reply(tools=[("Sum", {"value": 5})]))
        agent = FunctionAgent(llm=llm, tools=[add], output_cls=Sum)
        result: Any = await agent.run(task, memory=memory())
        assert result.structured_response == {"value": 5}
        assert_stable(llm, router, events, task, side, 3)

    @TASKS
    async def test_state_around_the_message(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
        agent = FunctionAgent(llm=llm, tools=[add], initial_state={"mood": "p=0.5 calm\n\nor not"})
        assert str(await agent.run(task, memory=memory())) == "five"
        assert "Current state:" in str(sides(llm)[side].seen[0].messages)
        assert_stable(llm, router, events, task, side, 2)

    @TASKS
    @streaming_or_not
    async def test_the_output_tells_the_decision_of_the_last_step(
        self, task: str, side: str, streaming: bool, llm: RouteLLM, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
        output: Any = await FunctionAgent(llm=llm, tools=[add], streaming=streaming).run(task, memory=memory())
        assert routing_decision(output) == RoutingDecision.from_dict(events.decisions[-1])
        assert output["routellm"] == events.decisions[-1]
        assert "routellm" not in str(output.response.additional_kwargs)

    async def test_two_runs_of_one_conversation(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        agent = FunctionAgent(llm=llm, tools=[add])
        remembered = memory()
        fake(llm.strong).reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
        assert str(await agent.run(HARD, memory=remembered)) == "five"
        fake(llm.weak).reply_next(Reply(tools=[("shout", {"text": "x"})]), "X")
        await agent.run(EASY, memory=remembered)
        assert list(dict.fromkeys(router.prompts)) == [HARD, EASY]
        assert len(fake(llm.weak).seen) == 2

    async def test_failover_within_the_loop(self, llm: RouteLLM, router: ScriptedRouter, events: Recorder) -> None:
        safe = RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5, failover=True, cooldown=0)
        fake(llm.weak).reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), SurvivableError("down"), "five")
        fake(llm.strong).reply_next(Reply(tools=[("shout", {"text": "x"})]))
        agent = FunctionAgent(llm=safe, tools=[add, shout])
        assert str(await agent.run(EASY, memory=memory())) == "five"
        assert [(d["model"], d["failover"]) for d in events.decisions] == [
            ("weak", None),
            ("strong", "weak"),
            ("weak", None),
        ]

    async def test_options_around_a_run(self, llm: RouteLLM) -> None:
        fake(llm.strong).reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
        with instrument_tags({"routellm_force": "strong"}):
            await FunctionAgent(llm=llm, tools=[add]).run(EASY, memory=memory())
        assert len(fake(llm.strong).seen) == 2
        assert fake(llm.weak).seen == []


class TestReActAgent:
    STEPS = (
        'Thought: I need to add.\nAction: add\nAction Input: {"a": 2, "b": 3}',
        "Thought: I can answer.\nAnswer: five",
    )

    @TASKS
    @streaming_or_not
    async def test_observations_are_not_routed_on(
        self, task: str, side: str, streaming: bool, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(*self.STEPS)
        agent = ReActAgent(llm=llm, tools=[add], streaming=streaming)
        assert str(await agent.run(task, memory=memory())) == "five"
        last = sides(llm)[side].seen[1].messages[-1]
        assert (last.role, last.content) == (MessageRole.USER, "Observation: p=0.5 The sum is 5.")
        assert_stable(llm, router, events, task, side, 2)

    @TASKS
    async def test_nor_are_requests_to_try_again(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        malformed = "Thought: p=0.5 hm\nAction: add\nAction Input: nonsense p=0.5"
        sides(llm)[side].reply_next(malformed, *self.STEPS)
        agent = ReActAgent(llm=llm, tools=[add])
        assert str(await agent.run(task, memory=memory())) == "five"
        assert_stable(llm, router, events, task, side, len(sides(llm)[side].seen))

    @TASKS
    async def test_lookback_counts_what_the_person_said(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter
    ) -> None:
        back = RouteLLM(strong=llm.strong, weak=llm.weak, router=router, threshold=0.5, lookback=3)
        sides(llm)[side].reply_next(*self.STEPS)
        agent = ReActAgent(llm=back, tools=[add])
        assert str(await agent.run(task, memory=memory())) == "five"
        assert set(router.prompts) == {task}

    async def test_without_tool_calling_predict_and_call_reasons_too(self, router: ScriptedRouter) -> None:
        models = {name: FakeLLM(name, *self.STEPS[:1], has_tools=False) for name in ("strong", "weak")}
        llm = RouteLLM(**models, router=router, threshold=0.5)  # type: ignore[arg-type]
        # without these two, LlamaIndex builds an agent that its own validation refuses
        reasoning: dict[str, Any] = {"react_chat_formatter": ReActChatFormatter(), "output_parser": ReActOutputParser()}
        answer = await llm.apredict_and_call([FunctionTool.from_defaults(add)], user_msg=EASY, **reasoning)
        assert str(answer) == "p=0.5 The sum is 5."
        assert len(models["weak"].seen) == 1


class TestCodeActAgent:
    @TASKS
    @streaming_or_not
    async def test_results_of_code_are_not_routed_on(
        self, task: str, side: str, streaming: bool, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        async def execute(code: str) -> str:
            return f"p=0.5 ran {code}"

        sides(llm)[side].reply_next("Let me see. <execute>print(2 + 3)</execute>", "five")
        agent = CodeActAgent(llm=llm, tools=[add], code_execute_fn=execute, streaming=streaming)
        assert str(await agent.run(task, memory=memory())) == "five"
        assert "Result of executing the code given" in str(sides(llm)[side].seen[1].messages[-1].content)
        assert_stable(llm, router, events, task, side, 2)


class TestAgentWorkflow:
    @TASKS
    async def test_a_hand_off(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(
            Reply(tools=[("handoff", {"to_agent": "adder", "reason": "p=0.5 numbers"})]),
            Reply(tools=[("add", {"a": 2, "b": 3})]),
            "five",
        )
        first = FunctionAgent(
            name="first", description="Talks", llm=llm, tools=[shout], can_handoff_to=["adder"], system_prompt="p=0.5 x"
        )
        adder = FunctionAgent(name="adder", description="Adds", llm=llm, tools=[add])
        workflow = AgentWorkflow(agents=[first, adder], root_agent="first", initial_state={"step": "p=0.5 one"})
        result: Any = await workflow.run(task, memory=memory())
        assert str(result) == "five"
        assert result.current_agent_name == "adder"
        assert_stable(llm, router, events, task, side, 3)

    @TASKS
    async def test_from_tools(
        self, task: str, side: str, llm: RouteLLM, router: ScriptedRouter, events: Recorder
    ) -> None:
        sides(llm)[side].reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
        workflow = AgentWorkflow.from_tools_or_functions([add], llm=llm)
        assert str(await workflow.run(task, memory=memory())) == "five"
        assert_stable(llm, router, events, task, side, 2)

    async def test_agents_with_their_own_routing(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        fake(llm.strong).reply_next(Reply(tools=[("handoff", {"to_agent": "adder", "reason": "numbers"})]))
        cheap = RouteLLM(strong=FakeLLM("other"), weak=FakeLLM("tiny", "five"), router=router, threshold=0.99)
        first = FunctionAgent(name="first", description="Talks", llm=llm, tools=[shout], can_handoff_to=["adder"])
        adder = FunctionAgent(name="adder", description="Adds", llm=cheap, tools=[add])
        workflow = AgentWorkflow(agents=[first, adder], root_agent="first")
        assert str(await workflow.run(HARD, memory=memory())) == "five"


@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent], ids=lambda kind: kind.__name__)
async def test_tokens_are_counted_once(kind: type[Any], llm: RouteLLM, counter: TokenCountingHandler) -> None:
    llm.callback_manager = CallbackManager([counter])
    if kind is FunctionAgent:
        fake(llm.weak).reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
    else:
        fake(llm.weak).reply_next(*TestReActAgent.STEPS)
    assert str(await kind(llm=llm, tools=[add]).run(EASY, memory=memory())) == "five"
    assert len(counter.llm_token_counts) == 2
    assert counter.total_llm_token_count == 2 * 15


class TestMixedProviders:
    async def test_each_answer_is_parsed_by_the_model_that_gave_it(self, llm: RouteLLM, router: ScriptedRouter) -> None:
        # FakeLLM refuses to parse another's tool calls, so a wrong parser fails these runs
        for task, name in ((EASY, "weak"), (HARD, "strong")):
            sides(llm)[name].reply_next(Reply(tools=[("add", {"a": 2, "b": 3})]), "five")
            result: Any = await FunctionAgent(llm=llm, tools=[add]).run(task, memory=memory())
            assert result.tool_calls[0].tool_id == f"{name}-0"


def test_the_scratchpad_is_free_of_decisions(llm: RouteLLM) -> None:
    message = llm.chat([ChatMessage(content=EASY)]).message
    assert message.additional_kwargs == {}
