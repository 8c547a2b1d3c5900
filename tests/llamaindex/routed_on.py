"""What each part of LlamaIndex that asks an LLM is routed on: recipes that run them all, and the table of the guide.

``python -m tests.llamaindex.routed_on`` writes the table into docs/llamaindex.md.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import llama_index.core
from llama_index.core import (
    ComposableGraph,
    DocumentSummaryIndex,
    KeywordTableIndex,
    KnowledgeGraphIndex,
    Settings,
    SQLDatabase,
    StorageContext,
    SummaryIndex,
    TreeIndex,
    VectorStoreIndex,
)
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation.base import BaseEvaluator
from llama_index.core.graph_stores import SimpleGraphStore, SimplePropertyGraphStore
from llama_index.core.indices.empty import EmptyIndex
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectIndex, SQLTableNodeMapping, SQLTableSchema
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.question_gen.types import BaseQuestionGenerator
from llama_index.core.response_synthesizers.base import BaseSynthesizer
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata
from llama_index.core.vector_stores.types import VectorStoreInfo
from pydantic import BaseModel

from llamaindex_routellm import RouteLLM
from tests.support.fakes_llamaindex import FakeLLM, Reply
from tests.support.routers import ScriptedRouter

DOC = Path(__file__).resolve().parents[2] / "docs" / "llamaindex.md"
BEGIN, END = "<!-- what is routed on: made by tests/llamaindex/routed_on.py -->", "<!-- /what is routed on -->"

QUESTION = "p=0.1 When did the Harbour Bridge open?"
# what an LLM makes of the question, or answers; each is told from the others by its win rate
REWRITTEN, ANSWER = "p=0.2 In what year did the bridge open?", "p=0.3 It opened in 1932."
PASSAGES = ["p=0.97 The bridge opened in 1932.", "p=0.98 It carries trains."]
LABELS = {
    QUESTION: "the question",
    REWRITTEN: "what the LLM made of the question",
    ANSWER: "the answer",
}

KINDS: dict[str, type] = {
    "query engines": BaseQueryEngine,
    "chat engines": BaseChatEngine,
    "response synthesizers": BaseSynthesizer,
    "retrievers": BaseRetriever,
    "selectors": BaseSelector,
    "rerankers and other postprocessors": BaseNodePostprocessor,
    "query transforms": BaseQueryTransform,
    "question generators": BaseQuestionGenerator,
    "evaluators": BaseEvaluator,
}

Recipe = Callable[["Script", Any], Callable[[], Any]]
RECIPES: dict[str, Recipe] = {}


class Script(list[Any]):
    """Replies of both models, in the order in which they are asked; when it is used up, the answer."""

    def __call__(self, messages: Sequence[ChatMessage]) -> Reply | str:
        return self.pop(0) if self else ANSWER


def recipe(function: Recipe) -> Recipe:
    """Register what runs the class that the function is named after."""
    RECIPES[function.__name__] = function
    return function


# -- the installed package --


def modules() -> Iterator[ModuleType]:
    """Every module of LlamaIndex's core that can be imported here."""
    for found in pkgutil.walk_packages(llama_index.core.__path__, "llama_index.core."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield importlib.import_module(found.name)
            except ImportError:  # of something that is not installed
                continue


def classes() -> dict[str, dict[str, type]]:
    """By kind, the classes of LlamaIndex's core that one can make objects of."""
    found: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
    for module in modules():
        for cls in vars(module).values():
            if not (inspect.isclass(cls) and cls.__module__.startswith("llama_index.core")):
                continue
            for kind, base in KINDS.items():
                # the one that is meant to be subclassed by users has a recipe though it is abstract
                if issubclass(cls, base) and (cls.__name__ in RECIPES or not inspect.isabstract(cls)):
                    found[kind][cls.__name__] = cls
    return found


def may_ask_an_llm(cls: type) -> bool:
    """Whether the code of a class, without its comments and docstrings, has an LLM or a part that has one."""
    for base in cls.__mro__:
        if base.__module__.startswith("llama_index.core") and base not in KINDS.values():
            code = re.sub(r'""".*?"""|#.*', "", inspect.getsource(base), flags=re.DOTALL)
            if re.search(
                r"llm|program|selector|query_engine|query_transform|retriever_dict|sub_retrievers", code, re.I
            ):
                return True
    return False


def label(text: str) -> str:
    """How the table calls a text that was routed on."""
    if text in LABELS:
        return LABELS[text]
    if REWRITTEN.lower() in text.lower() and text.startswith("["):  # a list of keywords
        return LABELS[REWRITTEN]
    if text.startswith("Mask out the PII"):
        return "LlamaIndex's own instruction"
    return "the whole prompt, with the context" if any(p in text for p in PASSAGES) else "the whole prompt"


def routed_on(cls: type, route_on: Any = None) -> list[str]:
    """Run the recipe of a class; what its calls were routed on, each once, in order."""
    script, router = Script(), ScriptedRouter()
    models = {side: FakeLLM(side, respond=script) for side in ("strong", "weak")}
    llm = RouteLLM(strong=models["strong"], weak=models["weak"], router=router, threshold=0.5, route_on=route_on)
    Settings.llm, Settings.embed_model = llm, MockEmbedding(embed_dim=4)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        ask = RECIPES[cls.__name__](script, cls)
        router.calls.clear()  # what an index was built by
        ask()
    return list(dict.fromkeys(map(label, router.prompts)))


def table(found: dict[str, dict[str, type]]) -> str:
    """The table of the guide."""
    lines = ["| | class | routed on |", "|---|---|---|"]
    for kind, members in found.items():
        rows = [(name, texts) for name in sorted(set(members) & set(RECIPES)) if (texts := routed_on(members[name]))]
        lines += [
            f"| {kind if i == 0 else ''} | `{name}` | {'; '.join(texts)} |" for i, (name, texts) in enumerate(rows)
        ]
    return "\n".join(lines)


# -- parts --


class Passages(BaseRetriever):
    def __init__(self, count: int = len(PASSAGES)) -> None:
        self.count = count
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return nodes()[: self.count]


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.8) for i, text in enumerate(PASSAGES)]


def documents() -> list[Document]:
    return [Document(text=text) for text in PASSAGES]


def engine() -> Any:
    from llama_index.core.query_engine import RetrieverQueryEngine

    return RetrieverQueryEngine(Passages())


def tool(name: str = "bridge") -> QueryEngineTool:
    return QueryEngineTool.from_defaults(engine(), name=name, description="p=0.9 All about a bridge")


def memory() -> ChatMemoryBuffer:
    talk = [ChatMessage(role="user", content="p=0.6 Hello"), ChatMessage(role="assistant", content="p=0.6 Hi")]
    return ChatMemoryBuffer.from_defaults(chat_history=talk, token_limit=3000, tokenizer_fn=str.split)


def database() -> SQLDatabase:
    from sqlalchemy import create_engine, text

    made = create_engine("sqlite://")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE bridges (name TEXT, year INTEGER)"))
        connection.execute(text("INSERT INTO bridges VALUES ('Harbour', 1932)"))
    return SQLDatabase(made)


SQL = "SELECT year FROM bridges"


def sql_engine() -> Any:
    from llama_index.core.query_engine import NLSQLTableQueryEngine as Engine

    return Engine(database(), tables=["bridges"])


def sql_index() -> Any:
    from llama_index.core.indices.struct_store.sql import SQLStructStoreIndex

    return SQLStructStoreIndex([], sql_database=database(), table_name="bridges")


def auto_retriever() -> Any:
    from llama_index.core.retrievers import VectorIndexAutoRetriever as Retriever

    about = VectorStoreInfo(content_info="p=0.6 Bridges", metadata_info=[])
    return Retriever(VectorStoreIndex.from_documents(documents()), vector_store_info=about)


class Graph(SimplePropertyGraphStore):
    """A property graph that takes queries, as those of databases do."""

    supports_structured_queries = True

    def structured_query(self, query: str, param_map: dict[str, Any] | None = None) -> Any:
        return [{"year": 1932}]

    def get_schema_str(self, *args: Any, **kwargs: Any) -> str:
        return "p=0.6 Bridge(year)"

    def get_schema(self, *args: Any, **kwargs: Any) -> str:
        return "p=0.6 Bridge(year)"


class Triples(SimpleGraphStore):
    """A graph store that takes queries."""

    def query(self, query: str, param_map: dict[str, Any] | None = None) -> Any:
        return "1932"

    def get_schema(self, refresh: bool = False) -> str:
        return "p=0.6 Bridge(year)"


# -- query engines: each recipe builds a part, scripts what its LLM says, and returns what asks it --


@recipe
def RetrieverQueryEngine(script: Script, part: Any) -> Any:
    return lambda: engine().query(QUESTION)


@recipe
def CitationQueryEngine(script: Script, part: Any) -> Any:
    index = VectorStoreIndex.from_documents(documents())
    return lambda: part.from_args(index).query(QUESTION)


@recipe
def CustomQueryEngine(script: Script, part: Any) -> Any:
    class Own(part):  # type: ignore[misc]
        """As the guides write it: a prompt of its own, completed."""

        def custom_query(self, query_str: str) -> str:
            context = "\n".join(node.text for node in Passages().retrieve(query_str))
            return str(Settings.llm.complete(f"Context: {context}\nQuestion: {query_str}\nAnswer: "))

    return lambda: Own().query(QUESTION)


@recipe
def FLAREInstructQueryEngine(script: Script, part: Any) -> Any:
    script += [f"It opened in [Search({REWRITTEN})].", ANSWER, ANSWER, "done"]
    return lambda: part(engine(), max_iterations=2).query(QUESTION)


@recipe
def ComposableGraphQueryEngine(script: Script, part: Any) -> Any:
    graph = ComposableGraph.from_indices(SummaryIndex, [SummaryIndex.from_documents(documents())], ["p=0.6 A bridge"])
    return lambda: graph.as_query_engine().query(QUESTION)


@recipe
def KnowledgeGraphQueryEngine(script: Script, part: Any) -> Any:
    context = StorageContext.from_defaults(graph_store=Triples())
    made = part(storage_context=context, graph_query_synthesis_prompt=PromptTemplate("{schema} {query_str}"))
    return lambda: made.query(QUESTION)


@recipe
def SimpleMultiModalQueryEngine(script: Script, part: Any) -> Any:
    made = part(Passages(), multi_modal_llm=Settings.llm)
    return lambda: made.query(QUESTION)


@recipe
def MultiStepQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.indices.query.query_transform import StepDecomposeQueryTransform as Transform

    script += [REWRITTEN, ANSWER, "None"]
    return lambda: part(engine(), Transform(), num_steps=2, index_summary="p=0.6 A bridge").query(QUESTION)


@recipe
def RetryQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.evaluation import RelevancyEvaluator as Evaluator

    script += [ANSWER, "NO", ANSWER, "YES"]
    return lambda: part(engine(), Evaluator(), max_retries=1).query(QUESTION)


@recipe
def RetryGuidelineQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.evaluation import GuidelineEvaluator as Evaluator

    script += [ANSWER, '{"passing": false, "feedback": "p=0.6 more"}', REWRITTEN, ANSWER]
    made = part(engine(), Evaluator(guidelines="p=0.6 Be right."), resynthesize_query=True, max_retries=1)
    return lambda: made.query(QUESTION)


@recipe
def RetrySourceQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.evaluation import RelevancyEvaluator as Evaluator

    script += [ANSWER, "NO", "YES", "YES"]
    return lambda: part(engine(), Evaluator(), max_retries=1).query(QUESTION)


@recipe
def RouterQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.selectors import LLMMultiSelector as Selector

    choices = [{"choice": number, "reason": "p=0.6 it fits"} for number in (1, 2)]
    script += [json.dumps(choices)]
    return lambda: part(Selector.from_defaults(), [tool("one"), tool("two")]).query(QUESTION)


@recipe
def RetrieverRouterQueryEngine(script: Script, part: Any) -> Any:
    return lambda: part(Passages(1), lambda node: engine()).query(QUESTION)


@recipe
def ToolRetrieverRouterQueryEngine(script: Script, part: Any) -> Any:
    index = ObjectIndex.from_objects([tool("one"), tool("two")])
    return lambda: part(index.as_retriever(similarity_top_k=2)).query(QUESTION)


@recipe
def SubQuestionQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.question_gen import LLMQuestionGenerator as Generator

    script += [_sub_questions()]
    made = part.from_defaults([tool()], question_gen=Generator.from_defaults(), use_async=False, verbose=False)
    return lambda: made.query(QUESTION)


@recipe
def TransformQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.indices.query.query_transform import HyDEQueryTransform as Transform

    return lambda: part(engine(), Transform()).query(QUESTION)


@recipe
def JSONQueryEngine(script: Script, part: Any) -> Any:
    made = part({"year": 1932}, {"type": "object"}, output_processor=lambda *_: {"year": 1932})
    return lambda: made.query(QUESTION)


@recipe
def NLSQLTableQueryEngine(script: Script, part: Any) -> Any:
    script += [SQL]
    return lambda: sql_engine().query(QUESTION)


@recipe
def PGVectorSQLQueryEngine(script: Script, part: Any) -> Any:
    script += [SQL]
    return lambda: part(database(), tables=["bridges"]).query(QUESTION)


@recipe
def SQLTableRetrieverQueryEngine(script: Script, part: Any) -> Any:
    script += [SQL]
    sql = database()
    tables = ObjectIndex.from_objects([SQLTableSchema(table_name="bridges")], SQLTableNodeMapping(sql))
    return lambda: part(sql, tables.as_retriever()).query(QUESTION)


@recipe
def NLStructStoreQueryEngine(script: Script, part: Any) -> Any:
    script += [SQL]
    return lambda: part(sql_index()).query(QUESTION)


@recipe
def SQLJoinQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.selectors import LLMSingleSelector as Selector

    script += [json.dumps({"choice": 1, "reason": "p=0.6 x"}), SQL, ANSWER, REWRITTEN]
    tools = (QueryEngineTool.from_defaults(sql_engine(), name="sql", description="p=0.9 Tables"), tool())
    return lambda: part(*tools, selector=Selector.from_defaults(), verbose=False).query(QUESTION)


@recipe
def SQLAutoVectorQueryEngine(script: Script, part: Any) -> Any:
    from llama_index.core.query_engine import RetrieverQueryEngine as Engine
    from llama_index.core.selectors import LLMSingleSelector as Selector

    script += [json.dumps({"choice": 1, "reason": "p=0.6 x"}), SQL, ANSWER, REWRITTEN]
    vector = QueryEngineTool.from_defaults(Engine(auto_retriever()), name="v", description="p=0.9 Texts")
    tools = (QueryEngineTool.from_defaults(sql_engine(), name="sql", description="p=0.9 Tables"), vector)
    return lambda: part(*tools, selector=Selector.from_defaults(), verbose=False).query(QUESTION)


# -- chat engines: the second thing that is said, after a greeting --


@recipe
def SimpleChatEngine(script: Script, part: Any) -> Any:
    return lambda: part.from_defaults(llm=Settings.llm, memory=memory()).chat(QUESTION)


@recipe
def ContextChatEngine(script: Script, part: Any) -> Any:
    return lambda: part.from_defaults(Passages(), llm=Settings.llm, memory=memory()).chat(QUESTION)


@recipe
def CondenseQuestionChatEngine(script: Script, part: Any) -> Any:
    script += [REWRITTEN]
    return lambda: part.from_defaults(engine(), llm=Settings.llm, memory=memory()).chat(QUESTION)


@recipe
def CondensePlusContextChatEngine(script: Script, part: Any) -> Any:
    script += [REWRITTEN]
    return lambda: part.from_defaults(Passages(), llm=Settings.llm, memory=memory()).chat(QUESTION)


@recipe
def MultiModalContextChatEngine(script: Script, part: Any) -> Any:
    return lambda: part.from_defaults(Passages(), multi_modal_llm=Settings.llm, memory=memory()).chat(QUESTION)


@recipe
def MultiModalCondensePlusContextChatEngine(script: Script, part: Any) -> Any:
    script += [REWRITTEN]
    return lambda: part.from_defaults(Passages(), multi_modal_llm=Settings.llm, memory=memory()).chat(QUESTION)


# -- response synthesizers --


def _synthesizes(script: Script, part: Any) -> Any:
    return lambda: part().synthesize(QUESTION, nodes())


for _name in ("Accumulate", "CompactAndAccumulate", "CompactAndRefine", "Generation", "Refine"):
    RECIPES[_name] = _synthesizes
for _name in ("SimpleSummarize", "TreeSummarize"):
    RECIPES[_name] = _synthesizes


# -- retrievers --


@recipe
def DocumentSummaryIndexLLMRetriever(script: Script, part: Any) -> Any:
    index = DocumentSummaryIndex.from_documents(documents(), embed_summaries=False)
    script[:] = ["Doc: 1, Relevance: 7"]
    return lambda: index.as_retriever(retriever_mode="llm").retrieve(QUESTION)


@recipe
def EmptyIndexRetriever(script: Script, part: Any) -> Any:
    return lambda: EmptyIndex().as_query_engine().query(QUESTION)


@recipe
def KeywordTableGPTRetriever(script: Script, part: Any) -> Any:
    script += ["KEYWORDS: bridge"] * 2
    index = KeywordTableIndex.from_documents(documents())
    script[:] = ["KEYWORDS: bridge"]
    return lambda: index.as_retriever(retriever_mode="default").retrieve(QUESTION)


@recipe
def KGTableRetriever(script: Script, part: Any) -> Any:
    script += ["(bridge, opened in, 1932)"] * 2
    index = KnowledgeGraphIndex.from_documents(documents())
    script[:] = ["KEYWORDS: bridge"]
    return lambda: index.as_retriever().retrieve(QUESTION)


@recipe
def KnowledgeGraphRAGRetriever(script: Script, part: Any) -> Any:
    script += [f"KEYWORDS: {REWRITTEN}", f"SYNONYMS: {REWRITTEN}", REWRITTEN]
    context = StorageContext.from_defaults(graph_store=Triples())
    prompt = PromptTemplate("{schema} {query_str}")
    made = part(context, with_nl2graphquery=True, graph_query_synthesis_prompt=prompt)
    return lambda: made.retrieve(QUESTION)


@recipe
def SummaryIndexLLMRetriever(script: Script, part: Any) -> Any:
    script += ["Doc: 1, Relevance: 7"]
    index = SummaryIndex.from_documents(documents())
    return lambda: index.as_retriever(retriever_mode="llm").retrieve(QUESTION)


@recipe
def PGRetriever(script: Script, part: Any) -> Any:
    from llama_index.core.indices.property_graph import LLMSynonymRetriever as Sub

    return lambda: part([Sub(Graph())], use_async=False).retrieve(QUESTION)


@recipe
def LLMSynonymRetriever(script: Script, part: Any) -> Any:
    return lambda: part(Graph()).retrieve(QUESTION)


class Year(BaseModel):
    """What a Cypher template is filled with."""

    year: int


@recipe
def CypherTemplateRetriever(script: Script, part: Any) -> Any:
    script += [Reply(tools=[("Year", {"year": 1932})])]
    return lambda: part(Graph(), Year, "MATCH (b) WHERE b.year = $year").retrieve(QUESTION)


@recipe
def TextToCypherRetriever(script: Script, part: Any) -> Any:
    script += [REWRITTEN]
    return lambda: part(Graph(), summarize_response=True).retrieve(QUESTION)


@recipe
def NLSQLRetriever(script: Script, part: Any) -> Any:
    script += [SQL]
    return lambda: part(database(), tables=["bridges"]).retrieve(QUESTION)


def _tree(script: Script) -> TreeIndex:
    index = TreeIndex.from_documents(documents(), num_children=2)
    script[:] = ["ANSWER: 1"] * 3
    return index


@recipe
def TreeSelectLeafRetriever(script: Script, part: Any) -> Any:
    index = _tree(script)
    return lambda: index.as_retriever(retriever_mode="select_leaf").retrieve(QUESTION)


@recipe
def TreeSelectLeafEmbeddingRetriever(script: Script, part: Any) -> Any:
    index = _tree(script)
    return lambda: index.as_retriever(retriever_mode="select_leaf_embedding").retrieve(QUESTION)


@recipe
def VectorIndexAutoRetriever(script: Script, part: Any) -> Any:
    retriever = auto_retriever()
    script += ['```json\n{"query": "bridge", "filters": [], "top_k": 1}\n```']
    return lambda: retriever.retrieve(QUESTION)


@recipe
def QueryFusionRetriever(script: Script, part: Any) -> Any:
    script += [REWRITTEN]
    return lambda: part([Passages()], num_queries=2, use_async=False).retrieve(QUESTION)


@recipe
def RecursiveRetriever(script: Script, part: Any) -> Any:
    from llama_index.core.schema import IndexNode

    class Root(BaseRetriever):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return [NodeWithScore(node=IndexNode(text="p=0.6 More", index_id="more"), score=0.8)]

    made = part("root", retriever_dict={"root": Root()}, query_engine_dict={"more": engine()})
    return lambda: made.retrieve(QUESTION)


@recipe
def RouterRetriever(script: Script, part: Any) -> Any:
    from llama_index.core.selectors import LLMSingleSelector as Selector

    script += [json.dumps({"choice": 1, "reason": "p=0.6 x"})]
    tools = [RetrieverTool.from_defaults(Passages(), name=n, description="p=0.9 Texts") for n in ("one", "two")]
    return lambda: part(Selector.from_defaults(), tools).retrieve(QUESTION)


@recipe
def TransformRetriever(script: Script, part: Any) -> Any:
    from llama_index.core.indices.query.query_transform import HyDEQueryTransform as Transform

    return lambda: part(Passages(), Transform()).retrieve(QUESTION)


# -- selectors --

CHOICES = [ToolMetadata(description="p=0.9 All about a bridge", name=name) for name in ("one", "two")]


@recipe
def LLMSingleSelector(script: Script, part: Any) -> Any:
    script += [json.dumps({"choice": 1, "reason": "p=0.6 x"})]
    return lambda: part.from_defaults().select(CHOICES, QUESTION)


@recipe
def LLMMultiSelector(script: Script, part: Any) -> Any:
    script += [json.dumps([{"choice": 1, "reason": "p=0.6 x"}])]
    return lambda: part.from_defaults().select(CHOICES, QUESTION)


@recipe
def PydanticSingleSelector(script: Script, part: Any) -> Any:
    script += [Reply(tools=[("SingleSelection", {"index": 1, "reason": "p=0.6 x"})])]
    return lambda: part.from_defaults(llm=Settings.llm).select(CHOICES, QUESTION)


@recipe
def PydanticMultiSelector(script: Script, part: Any) -> Any:
    picked = {"selections": [{"index": 1, "reason": "p=0.6 x"}]}
    script += [Reply(tools=[("MultiSelection", picked)])]
    return lambda: part.from_defaults(llm=Settings.llm).select(CHOICES, QUESTION)


@recipe
def EmbeddingSingleSelector(script: Script, part: Any) -> Any:
    return lambda: part.from_defaults(Settings.embed_model).select(CHOICES, QUESTION)


# -- rerankers and other postprocessors --


@recipe
def LLMRerank(script: Script, part: Any) -> Any:
    script += ["Doc: 1, Relevance: 7"]
    return lambda: part().postprocess_nodes(nodes(), query_str=QUESTION)


@recipe
def StructuredLLMRerank(script: Script, part: Any) -> Any:
    found = {"documents": [{"document_number": 1, "relevance": 7}]}
    script += [Reply(tools=[("DocumentRelevanceList", found)])]
    return lambda: part().postprocess_nodes(nodes(), query_str=QUESTION)


@recipe
def RankGPTRerank(script: Script, part: Any) -> Any:
    script += ["[2] > [1]"]
    return lambda: part(llm=Settings.llm).postprocess_nodes(nodes(), query_str=QUESTION)


@recipe
def PIINodePostprocessor(script: Script, part: Any) -> Any:
    script += ["It opened. Output Mapping: {}"] * 2
    return lambda: part(llm=Settings.llm).postprocess_nodes(nodes(), query_str=QUESTION)


@recipe
def AutoPrevNextNodePostprocessor(script: Script, part: Any) -> Any:
    from llama_index.core.storage.docstore import SimpleDocumentStore

    script += ["NONE"]
    return lambda: part(docstore=SimpleDocumentStore()).postprocess_nodes(nodes()[:1], query_str=QUESTION)


# -- query transforms and question generators --


@recipe
def HyDEQueryTransform(script: Script, part: Any) -> Any:
    return lambda: part().run(QUESTION)


@recipe
def DecomposeQueryTransform(script: Script, part: Any) -> Any:
    return lambda: part().run(QUESTION, {"index_summary": "p=0.6 A bridge"})


@recipe
def StepDecomposeQueryTransform(script: Script, part: Any) -> Any:
    return lambda: part().run(QUESTION, {"index_summary": "p=0.6 A bridge", "prev_reasoning": "p=0.6 none"})


@recipe
def FeedbackQueryTransformation(script: Script, part: Any) -> Any:
    from llama_index.core.evaluation import EvaluationResult

    found = EvaluationResult(query=QUESTION, response=ANSWER, feedback="p=0.6 more")
    return lambda: part(resynthesize_query=True).run(QUESTION, {"evaluation": found})


@recipe
def SQLAugmentQueryTransform(script: Script, part: Any) -> Any:
    return lambda: part().run(QUESTION, {"sql_query": SQL, "sql_query_response": "p=0.6 1932"})


def _sub_questions() -> str:
    return f"```json\n{json.dumps({'items': [{'sub_question': REWRITTEN, 'tool_name': 'bridge'}]})}\n```"


@recipe
def LLMQuestionGenerator(script: Script, part: Any) -> Any:
    script += [_sub_questions()]
    return lambda: part.from_defaults().generate([tool().metadata], QueryBundle(QUESTION))


# -- evaluators --


def _evaluator(name: str, verdict: str = "[RESULT] 4", **options: Any) -> None:
    def run(script: Script, part: Any) -> Any:
        script += [verdict] * 4
        more = {"second_response": "p=0.4 In 1932."} if name.startswith("Pairwise") else {}
        return lambda: asyncio.run(part(**options).aevaluate(QUESTION, ANSWER, PASSAGES, **more))

    RECIPES[name] = run


_evaluator("AnswerRelevancyEvaluator")
_evaluator("ContextRelevancyEvaluator")
_evaluator("CorrectnessEvaluator", "4\np=0.6 good")
_evaluator("FaithfulnessEvaluator", "YES")
_evaluator("GuidelineEvaluator", '{"passing": true, "feedback": "p=0.6 ok"}', guidelines="p=0.6 Be right.")
_evaluator("PairwiseComparisonEvaluator", "[[A]]")
_evaluator("RelevancyEvaluator", "YES")


def _judges_pictures(script: Script, part: Any) -> Any:
    script += ["YES"]
    given = {"contexts": PASSAGES, "image_paths": [], "image_urls": []}
    return lambda: part(multi_modal_llm=Settings.llm).evaluate(QUESTION, ANSWER, **given)


for _name in ("MultiModalFaithfulnessEvaluator", "MultiModalRelevancyEvaluator"):
    RECIPES[_name] = _judges_pictures


def main() -> None:
    text = DOC.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOC.write_text(f"{head}{BEGIN}\n{table(classes())}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
