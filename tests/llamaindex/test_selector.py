"""RouteLLMSelector: the weak or the strong one of two engines, tools or retrievers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import BaseRetriever, RouterRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata
from llama_index_instrumentation.dispatcher import instrument_tags

from llamaindex_routellm import Retrieval, RouteLLMSelector, routing_decision
from routellm_core import ConfigurationError, RouterError, RoutingDecision, RoutingPolicy
from tests.llamaindex.conftest import Recorder
from tests.support.fakes_llamaindex import FakeLLM
from tests.support.routers import ScriptedRouter

EASY, HARD = "p=0.1 When?", "p=0.9 Why?"
CHOICES = [ToolMetadata(description="small", name="small"), ToolMetadata(description="large", name="large")]


class Says(CustomQueryEngine):
    """Answers with its own name."""

    name: str

    def custom_query(self, query_str: str) -> str:
        return self.name


class Finds(BaseRetriever):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=self.name), score=1.0)]


def selector(router: ScriptedRouter | None, **options: Any) -> RouteLLMSelector:
    return RouteLLMSelector(**{"router": router, "threshold": 0.5, **options})


def query_engine(router: ScriptedRouter | None, order: tuple[str, str] = ("small", "large"), **options: Any) -> Any:
    Settings.llm = FakeLLM()  # RouterQueryEngine makes a summarizer that it does not need for one choice
    tools = [QueryEngineTool.from_defaults(Says(name=n), name=n, description=n) for n in order]
    return RouterQueryEngine(selector=selector(router, **options), query_engine_tools=tools)


class TestRouterQueryEngine:
    @pytest.mark.parametrize(("query", "answer", "side"), [(EASY, "small", "weak"), (HARD, "large", "strong")])
    @pytest.mark.parametrize("way", ["query", "aquery"])
    async def test_by_index(
        self, query: str, answer: str, side: str, way: str, router: ScriptedRouter, events: Recorder
    ) -> None:
        engine = query_engine(router)
        response = engine.query(query) if way == "query" else await engine.aquery(query)
        assert str(response) == answer
        result = response.metadata["selector_result"]
        assert result.decision["model"] == side
        assert json.dumps(result.decision)
        assert events.decisions == [result.decision]
        assert routing_decision(response) == routing_decision(result) == RoutingDecision.from_dict(result.decision)
        assert side in result.reason
        assert str(result.decision["win_rate"]) in result.reason
        assert router.prompts == [query]

    def test_by_name_in_any_order(self, router: ScriptedRouter) -> None:
        engine = query_engine(router, ("large", "small"), weak="small", strong="large")
        assert [str(engine.query(q)) for q in (EASY, HARD)] == ["small", "large"]
        engine = query_engine(router, ("large", "small"), weak=1, strong=0)
        assert [str(engine.query(q)) for q in (EASY, HARD)] == ["small", "large"]

    def test_a_share_and_options_of_one_query(self, router: ScriptedRouter) -> None:
        engine = query_engine(router, threshold=None, strong_fraction=0.3)
        assert str(engine.query("p=0.69 x")) == "small"
        assert str(engine.query("p=0.71 x")) == "large"
        with instrument_tags({"routellm_threshold": 0.05}):
            assert str(engine.query(EASY)) == "large"
        with instrument_tags({"routellm_force": "weak"}):
            response = engine.query(HARD)
        assert str(response) == "small"
        assert response.metadata["selector_result"].reason == "weak: forced"

    def test_sticky(self, router: ScriptedRouter) -> None:
        engine = query_engine(router, sticky=True)
        with instrument_tags({"thread_id": 1}):
            assert [str(engine.query(q)) for q in (EASY, HARD, EASY)] == ["small", "large", "large"]
        assert str(engine.query(EASY)) == "small"

    def test_route_on(self, router: ScriptedRouter) -> None:
        def route_on(messages: list[ChatMessage], retrieval: Retrieval) -> str:
            return f"p=0.8 {messages[0].content} {retrieval.question}"

        assert str(query_engine(router, route_on=route_on).query(EASY)) == "large"
        assert router.prompts == [f"p=0.8 {EASY} {EASY}"]

    def test_a_failing_router(self, router: ScriptedRouter) -> None:
        broken = ScriptedRouter(error=RuntimeError("broken"))
        assert str(query_engine(broken).query(EASY)) == "large"
        policy = RoutingPolicy(broken, threshold=0.5, on_error="raise")
        with pytest.raises(RouterError):
            query_engine(None, threshold=None, policy=policy).query(EASY)


@pytest.mark.parametrize("way", ["retrieve", "aretrieve"])
async def test_router_retriever(way: str, router: ScriptedRouter) -> None:
    tools = [RetrieverTool.from_defaults(Finds(n), name=n, description=n) for n in ("small", "large")]
    retriever = RouterRetriever(selector=selector(router), retriever_tools=tools, llm=FakeLLM())
    for query, found in ((EASY, "small"), (HARD, "large")):
        nodes = retriever.retrieve(query) if way == "retrieve" else await retriever.aretrieve(query)
        assert [node.text for node in nodes] == [found]


class TestSelect:
    async def test_strings_and_bundles(self, router: ScriptedRouter) -> None:
        chosen = selector(router)
        assert chosen.select(["a", "b"], HARD).ind == 1
        assert (await chosen.aselect(["a", "b"], QueryBundle(EASY))).ind == 0

    def test_prompts_are_none(self, router: ScriptedRouter) -> None:
        chosen = selector(router)
        assert chosen.get_prompts() == {}
        chosen.update_prompts({})

    def test_threads_share_one(self, router: ScriptedRouter) -> None:
        chosen = selector(router)
        queries = [f"p=0.{i % 10} question {i}" for i in range(640)]
        with ThreadPoolExecutor(64) as pool:
            found = list(pool.map(lambda q: chosen.select(CHOICES, q).ind, queries))
        assert found == [int(i % 10 >= 5) for i in range(640)]

    @pytest.mark.parametrize("count", [0, 1, 3])
    async def test_other_than_two_choices(self, count: int, router: ScriptedRouter) -> None:
        choices = [ToolMetadata(description="x", name=f"tool{i}") for i in range(count)]
        message = f"got {count} choices.*needs exactly 2"
        with pytest.raises(ConfigurationError, match=message):
            selector(router).select(choices, EASY)
        with pytest.raises(ConfigurationError, match=message):
            await selector(router).aselect(choices, EASY)
        assert router.prompts == []

    def test_unknown_names(self, router: ScriptedRouter) -> None:
        with pytest.raises(ConfigurationError, match=r"2 choices named 'small' and 'large'.*strong='huge'"):
            selector(router, strong="huge").select(CHOICES, EASY)
        with pytest.raises(ConfigurationError, match="both choice 1"):
            selector(router, weak="large", strong=1).select(CHOICES, EASY)
        twins = [ToolMetadata(description="x", name="same")] * 2
        with pytest.raises(ConfigurationError, match="weak='same'"):
            selector(router, weak="same").select(twins, EASY)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weak": 2}, "weak=2"),
            ({"strong": True}, "strong=True"),
            ({"strong": None}, "strong=None"),
            ({"weak": 1}, "the same choice"),
            ({"threshold": 2}, "threshold=2"),
            ({"route_on": 3}, "route_on=3"),
            ({"sticky": 3}, "sticky=3"),
            ({"budget": 5}, "budget=: RouteLLMSelector has no such option"),
            ({"failover": True}, "failover=: RouteLLMSelector has no such option"),
            ({"deadline": 0}, "deadline=0"),
        ],
        ids=str,
    )
    def test_wrong_options(self, options: dict[str, Any], message: str, router: ScriptedRouter) -> None:
        with pytest.raises(ConfigurationError, match=message):
            selector(router, **options)
