"""Readers of traffic: every format and export, streamed, with clear words for what is malformed."""

import csv
import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import ConfigurationError, DataError
from routellm_core.data.files import SkippedRows
from routellm_core.data.prompts import prompts_of_record, read_prompts, routed_text


def put(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def lines(*records):
    return "".join(json.dumps(r) + "\n" for r in records)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "first\nsecond\r\n\n  \nlast", ["first", "second", "last"]),
        ("bom.txt", b"\xef\xbb\xbffirst\n", ["first"]),
        ("a.jsonl", lines({"prompt": "p"}, {"question": "q"}, {"text": "t"}), ["p", "q", "t"]),
        ("strings.jsonl", lines("one", "two"), ["one", "two"]),
        ("guess", lines({"prompt": "p"}), ["p"]),
        ("guess2", "plain words\n", ["plain words"]),
        ("a.json", json.dumps([{"prompt": "p"}, "q"], indent=2), ["p", "q"]),
        ("one.json", json.dumps({"prompt": "p"}), ["p"]),
        ("a.csv", 'id,Prompt\n1,"with, comma\nand line"\n2,plain\n', ["with, comma\nand line", "plain"]),
        ("a.tsv", "prompt\tid\nhello\t1\n", ["hello"]),
        ("turns.jsonl", lines({"turns": ["first", "second"]}), ["first"]),
        (
            "chat.jsonl",
            lines(
                {
                    "messages": [
                        {"role": "system", "content": "be brief"},
                        {"role": "user", "content": "old"},
                        {"role": "assistant", "content": "ok"},
                        {"role": "user", "content": [{"type": "text", "text": "new"}, {"type": "image_url"}]},
                        {"role": "tool", "content": "result"},
                    ]
                }
            ),
            ["new"],
        ),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_formats(tmp_path, name, content, expected, zipped):
    data = content if isinstance(content, bytes) else content.encode()
    file = put(tmp_path, name + (".gz" if zipped else ""), gzip.compress(data) if zipped else data)
    reader = read_prompts(file)
    assert list(reader) == expected
    assert list(reader) == expected  # each time from the start
    assert reader.total_bytes == file.stat().st_size


LANGSMITH = [
    {
        "id": "1",
        "run_type": "llm",
        "name": "ChatOpenAI",
        "inputs": {
            "messages": [
                [
                    {
                        "lc": 1,
                        "type": "constructor",
                        "id": ["langchain", "schema", "messages", "SystemMessage"],
                        "kwargs": {"content": "be brief", "type": "system"},
                    },
                    {
                        "lc": 1,
                        "type": "constructor",
                        "id": ["langchain", "schema", "messages", "HumanMessage"],
                        "kwargs": {"content": "constructor form", "type": "human"},
                    },
                ]
            ]
        },
    },
    {"id": "2", "run_type": "chain", "inputs": {"input": "a step that is no model call"}},
    {"id": "3", "run_type": "llm", "inputs": {"prompts": ["completion form"]}},
    {"id": "4", "run_type": "llm", "inputs": {"messages": [{"role": "user", "content": "role form"}]}},
    {"id": "5", "run_type": "llm", "inputs": {"messages": [{"type": "human", "data": {"content": "older form"}}]}},
    {"id": "6", "run_type": "llm", "inputs": {"messages": [["human", "pair form"]]}},
    {"id": "7", "run_type": "tool", "inputs": {"input": "a tool"}},
]
LANGSMITH_PROMPTS = ["constructor form", "completion form", "role form", "older form", "pair form"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs.jsonl", lines(*LANGSMITH)),
        ("runs.json", json.dumps(LANGSMITH)),
        ("wrapped.json", json.dumps({"runs": LANGSMITH})),
    ],
)
def test_langsmith_runs(tmp_path, name, content):
    reader = read_prompts(put(tmp_path, name, content))
    assert list(reader) == LANGSMITH_PROMPTS
    if name != "wrapped.json":
        assert reader.skipped == 2


def test_langsmith_csv_export(tmp_path):
    content = "id,run_type,inputs\n" + '1,llm,"{""messages"": [{""role"": ""user"", ""content"": ""from csv""}]}"\n'
    assert list(read_prompts(put(tmp_path, "runs.csv", content))) == ["from csv"]


def test_langfuse_observations_and_traces(tmp_path):
    rows = [
        {"id": "1", "traceId": "t", "type": "GENERATION", "input": [{"role": "user", "content": "generation"}]},
        {"id": "2", "traceId": "t", "type": "SPAN", "input": "a span"},
        {
            "id": "3",
            "traceId": "t",
            "type": "GENERATION",
            "input": {"messages": [{"role": "user", "content": "nested"}]},
        },
        {"id": "4", "traceId": "t", "type": "GENERATION", "input": '[{"role": "user", "content": "as text"}]'},
        {"id": "t", "name": "trace", "input": "a plain trace", "output": "x"},
    ]
    reader = read_prompts(put(tmp_path, "langfuse.jsonl", lines(*rows)))
    assert list(reader) == ["generation", "nested", "as text", "a plain trace"]
    assert reader.skipped == 1


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def test_opentelemetry_spans(tmp_path):
    parts = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "genai messages"}]}])
    spans = [
        {"name": "http GET", "attributes": [attribute("http.method", "GET")]},
        {"name": "chat", "attributes": [attribute("gen_ai.input.messages", parts)]},
        {
            "name": "openai.chat",
            "attributes": [
                attribute("gen_ai.prompt.0.role", "system"),
                attribute("gen_ai.prompt.0.content", "be brief"),
                attribute("gen_ai.prompt.1.role", "user"),
                attribute("gen_ai.prompt.1.content", "indexed"),
            ],
        },
        {
            "name": "ChatCompletion",
            "attributes": [
                attribute("openinference.span.kind", "LLM"),
                attribute("llm.input_messages.0.message.role", "user"),
                attribute("llm.input_messages.0.message.content", "openinference"),
            ],
        },
        {
            "name": "agent",
            "attributes": [attribute("openinference.span.kind", "AGENT"), attribute("input.value", "not a model call")],
        },
        {
            "name": "chat",
            "attributes": [attribute("gen_ai.system", "openai")],
            "events": [{"name": "gen_ai.user.message", "attributes": [attribute("content", "as an event")]}],
        },
    ]
    otlp = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": spans}]}]}
    expected = ["genai messages", "indexed", "openinference", "as an event"]
    assert list(read_prompts(put(tmp_path, "otlp.jsonl", lines(otlp)))) == expected
    assert list(read_prompts(put(tmp_path, "otlp.json", json.dumps(otlp, indent=1)))) == expected
    # the console exporter: one object after another, attributes as a mapping
    console = "\n".join(
        json.dumps(
            {"name": "chat", "attributes": {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": t}}, indent=4
        )
        for t in ("one", "two")
    )
    assert list(read_prompts(put(tmp_path, "console.json", console))) == ["one", "two"]


def test_field_names_where_the_prompt_is(tmp_path):
    file = put(tmp_path, "a.jsonl", lines({"inputs": {"ask": "deep"}, "prompt": "shallow"}))
    assert list(read_prompts(file, field="inputs.ask")) == ["deep"]
    with pytest.raises(DataError, match=r"line 1: there is no field 'inputs.q'; it has: ask"):
        list(read_prompts(file, field="inputs.q"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"prompt": "ok"}\n{"prompt": \n', "line 2: not JSON"),
        ("a.json", '[{"prompt": "ok"}, {"prom', "item 2: not JSON"),
        ("b.json", '[{"prompt": "ok"},', "truncated"),
        ("latin.txt", b"caf\xe9\n", "not UTF-8"),
        ("cut.txt.gz", gzip.compress(b"hello\n" * 5000, mtime=0)[:-30], "damaged gzip"),
    ],
)
def test_malformed_files_are_named_with_the_place(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words):
        list(read_prompts(put(tmp_path, name, content)))


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(ConfigurationError, match="format='xml'"):
        read_prompts(put(tmp_path, "a", ""), format="xml")  # type: ignore[arg-type]


def test_an_empty_file_has_no_prompts(tmp_path):
    for name in ("a.txt", "a.jsonl", "a.json", "a.csv", "a"):
        assert list(read_prompts(put(tmp_path, name, ""))) == []


def test_a_record_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.data.files.MAX_RECORD_CHARS", 10_000)
    monkeypatch.setattr("routellm_core.data.files._CHUNK", 4096)
    with pytest.raises(DataError, match="line 1: longer than 10,000 characters"):
        list(read_prompts(put(tmp_path, "a.txt", "x" * 50_000)))
    with pytest.raises(DataError, match="item 1: longer than 10,000 characters"):
        list(read_prompts(put(tmp_path, "a.json", '["' + "x" * 50_000 + '"]')))


@pytest.mark.parametrize("name", ["big.jsonl", "big.json", "big.csv", "big.txt"])
def test_memory_is_bounded_by_the_record_and_not_by_the_file(tmp_path, name):
    file = tmp_path / name
    with file.open("w") as out:
        if name.endswith(".json"):
            out.write("[")
        if name.endswith(".csv"):
            out.write("prompt\n")
        record = {"big.jsonl": json.dumps({"prompt": "x" * 1000}), "big.json": json.dumps("x" * 1000) + ","}.get(
            name, "x" * 1000
        )
        for _ in range(16_000):
            out.write(record + "\n")
        if name.endswith(".json"):
            out.write('"end"]')
    assert file.stat().st_size > 15e6
    tracemalloc.start()
    count = sum(1 for _ in read_prompts(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count >= 16_000
    assert peak < 8e6


def test_progress_reaches_the_end(tmp_path):
    reader = read_prompts(put(tmp_path, "a.txt", "line\n" * 50_000))
    assert reader.bytes_read == 0
    seen = 0
    for i, _ in enumerate(reader):
        if i % 10_000 == 0:
            assert seen <= reader.bytes_read <= reader.total_bytes
            seen = reader.bytes_read
    assert seen > 0
    assert reader.bytes_read == reader.total_bytes


@given(
    st.lists(st.text().filter(lambda t: t.strip() and not t.startswith(("[", "{"))), max_size=20), st.integers(3, 40)
)
def test_json_array_is_read_the_same_whatever_the_chunk(tmp_path_factory, texts, chunk):
    import routellm_core.data.files as traffic

    file = put(tmp_path_factory.mktemp("json"), "a.json", json.dumps([{"prompt": t, "n": 12345} for t in texts]))
    before = traffic._CHUNK
    traffic._CHUNK = chunk
    try:
        assert list(read_prompts(file)) == texts
    finally:
        traffic._CHUNK = before


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "messages", "input", "type", "kwargs", "data", "id", "message"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


records = st.recursive(
    st.one_of(st.none(), st.text(max_size=4), st.sampled_from(["user", "llm", "chat", '["x"]'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "data",
                        "batches",
                        "spans",
                        "observations",
                        "child_runs",
                        "run_type",
                        "type",
                        "traceId",
                        "inputs",
                    ),
                    *("messages", "prompts", "content", "role", "attributes", "events", "key", "value", "name"),
                    *("arrayValue", "kvlistValue", "values", "gen_ai.input.messages", "gen_ai.operation.name"),
                    "gen_ai.prompt",
                    "llm.input_messages.0.message.role",
                    "llm.input_messages.0.message.content",
                    "llm.input_messages.0.message.contents.0.message_content.text",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=16,
)


@given(records)
def test_any_record_gives_texts_or_none(record):
    assert all(isinstance(text, str) and text.strip() for text in prompts_of_record(record))


@given(values)
def test_any_recorded_input_gives_a_text_or_none(value):
    found = routed_text(value)
    assert found is None or (isinstance(found, str) and found.strip())


@pytest.mark.parametrize("prompt", ['["x", "y"]', '{"question": "inner?"}', "[1, 2]", '{"a": 1}', '"quoted"'])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_prompt_that_happens_to_be_json_is_left_as_it_is(tmp_path, prompt, kind):
    file = tmp_path / f"p.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps({"prompt": prompt}) + "\n")
    else:
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([["prompt"], [prompt]])
    assert list(read_prompts(file)) == [prompt]


# Langfuse, as its API gives them: a list of traces holds ids of observations, one trace holds the observations.


def langfuse_trace(**more):
    return {
        "id": "trace-1",
        "timestamp": "2025-03-04T10:00:00.000Z",
        "name": "chat",
        "input": {"messages": [{"role": "user", "content": "asked of the trace"}]},
        "output": "an answer",
        "sessionId": None,
        "metadata": {},
        "tags": [],
        "public": False,
        "htmlPath": "/project/p/traces/trace-1",
        "latency": 1.2,
        "totalCost": 0.001,
        "scores": [],
        **more,
    }


def test_langfuse_trace_with_ids_of_observations_gives_its_own_input(tmp_path):
    trace = langfuse_trace(observations=["8f6d1f0a2b3c4d5e", "0a1b2c3d4e5f6071"])
    assert list(read_prompts(put(tmp_path, "traces.jsonl", lines(trace)))) == ["asked of the trace"]


def test_langfuse_page_of_the_api(tmp_path):
    generation = {"id": "g", "traceId": "trace-1", "type": "GENERATION", "input": "asked of a model"}
    retriever = {"id": "r", "traceId": "trace-1", "type": "RETRIEVER", "input": "looked up"}
    meta = {"page": 1, "limit": 50, "totalItems": 2, "totalPages": 1}
    traces = {"data": [langfuse_trace(observations=["a"])], "meta": meta}
    full = {"data": [langfuse_trace(observations=[retriever, generation])], "meta": meta}
    observations = {"data": [retriever, generation], "meta": meta}
    reader = read_prompts(put(tmp_path, "pages.jsonl", lines(traces, full, observations)))
    assert list(reader) == ["asked of the trace", "asked of a model", "asked of a model"]


def test_data_beside_a_prompt_is_no_page(tmp_path):
    record = {"prompt": "sum these up", "data": [{"text": "first"}, {"text": "second"}]}
    assert list(read_prompts(put(tmp_path, "a.jsonl", lines(record)))) == ["sum these up"]


def human(text):
    ident = ["langchain", "schema", "messages", "HumanMessage"]
    return {"lc": 1, "type": "constructor", "id": ident, "kwargs": {"content": text, "type": "human"}}


def test_langsmith_tree_of_runs_counts_its_model_calls(tmp_path):
    call = {"id": "2", "run_type": "llm", "inputs": {"messages": [[human("to the model")]]}, "child_runs": None}
    tool = {"id": "3", "run_type": "tool", "inputs": {"input": "to a tool"}, "child_runs": [call]}
    # a wrapper that calls itself a model, around the call that it hands on: one prompt, not two
    nested = {"id": "4", "run_type": "llm", "inputs": {"prompts": ["wrapped"]}, "child_runs": [call]}
    root = {"id": "1", "run_type": "chain", "inputs": {"input": "to the chain"}, "child_runs": [call, tool, nested]}
    empty = {"id": "5", "run_type": "chain", "inputs": {"input": "a chain without calls"}, "child_runs": []}
    reader = read_prompts(put(tmp_path, "tree.jsonl", lines(root, empty)))
    assert list(reader) == ["to the model", "to the model", "wrapped"]
    assert reader.skipped == 1


PAIR = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]


@pytest.mark.parametrize(
    ("inputs", "field", "expected"),
    [
        ({"messages": [[human("one")], [human("old"), human("two")]]}, None, ["one", "two"]),
        ({"messages": [[human("one")], [human("old"), human("two")]]}, "inputs", ["one", "two"]),
        ({"messages": [[human("one")], [human("old"), human("two")]]}, "inputs.messages", ["one", "two"]),
        ({"messages": [[["human", "one"]], [["human", "two"]]]}, None, ["one", "two"]),
        ({"messages": [["human", "one"], ["ai", "reply"]]}, None, ["one"]),
        ({"messages": PAIR}, None, ["two"]),
        ({"messages": PAIR}, "inputs.messages", ["two"]),
        ({"prompts": ["one", "two", " "]}, None, ["one", "two"]),
        ({"prompts": ["one", "two", " "]}, "inputs.prompts", ["one", "two"]),
        ({"messages": [["placeholder", "{history}"], ["human", "one"]]}, None, ["one"]),
        ([[PAIR[0]], [PAIR[1]]], None, ["one", "two"]),
        ({"turns": ["one", "two"]}, None, ["one"]),
        ({"turns": ["one", "two"]}, "inputs.turns", ["one"]),
    ],
)
def test_a_batch_of_calls_gives_a_prompt_each(tmp_path, inputs, field, expected):
    file = put(tmp_path, "runs.jsonl", lines({"id": "1", "run_type": "llm", "inputs": inputs}))
    assert list(read_prompts(file, field=field)) == expected


def spans_of(*spans):
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def otlp(value):
    """A value as OTLP JSON writes it."""
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": k, "value": otlp(v)} for k, v in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [otlp(v) for v in value]} if value else {}}
    return {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}


def span(**attributes):
    listed = [{"key": k.replace("__", "."), "value": otlp(v)} for k, v in attributes.items()]
    return {"traceId": "5b8e", "spanId": "051581", "name": "step", "kind": 3, "attributes": listed, "events": []}


ASKED = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "asked"}]}])


@pytest.mark.parametrize(
    ("attributes", "counts"),
    [
        ({"gen_ai__operation__name": "chat"}, True),
        ({"gen_ai__operation__name": "text_completion"}, True),
        ({"gen_ai__operation__name": "generate_content"}, True),
        ({"gen_ai__operation__name": "invoke_agent"}, False),
        ({"gen_ai__operation__name": "create_agent"}, False),
        ({"gen_ai__operation__name": "execute_tool"}, False),
        ({"gen_ai__operation__name": "embeddings"}, False),
        ({"openinference__span__kind": "LLM"}, True),
        ({"openinference__span__kind": "CHAIN"}, False),
        ({"openinference__span__kind": "AGENT"}, False),
        ({"openinference__span__kind": "TOOL"}, False),
        ({"openinference__span__kind": "EMBEDDING"}, False),
        # OpenLLMetry before it took over the name of the convention
        ({"llm__request__type": "chat"}, True),
        ({"llm__request__type": "completion"}, True),
        ({"llm__request__type": "embedding"}, False),
        ({"gen_ai__operation__name": "invoke_agent", "llm__request__type": "chat"}, False),
        ({}, True),
    ],
)
@pytest.mark.parametrize("form", ["gen_ai__input__messages", "gen_ai__prompt", "input__value", "indexed", "event"])
def test_only_spans_of_generations_count(tmp_path, attributes, counts, form):
    if form == "event":
        step = span(**attributes)
        step["events"] = [{"name": "gen_ai.user.message", "attributes": [attribute("content", "asked")]}]
    elif form == "indexed":
        step = span(**attributes, gen_ai__prompt__0__role="user", gen_ai__prompt__0__content="asked")
    else:
        step = span(**attributes, **{form: ASKED})
    reader = read_prompts(put(tmp_path, "spans.jsonl", lines(spans_of(step))))
    assert list(reader) == (["asked"] if counts else [])


@pytest.mark.parametrize("snake", [False, True])
def test_otlp_values_that_are_lists_and_mappings(tmp_path, snake):
    messages = [
        {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": "structured"}]},
    ]
    text = lines(spans_of(span(gen_ai__operation__name="chat", numbers=[1, []], gen_ai__input__messages=messages)))
    if snake:  # the same message of protobuf, written by its field names
        for name in ("string", "array", "kvlist", "int"):
            text = text.replace(f"{name}Value", f"{name}_value")
    assert list(read_prompts(put(tmp_path, "spans.jsonl", text))) == ["structured"]


def test_openinference_message_of_several_parts(tmp_path):
    prefix = "llm.input_messages.{}.message."
    flat = {
        "openinference.span.kind": "LLM",
        # its text form is not what was sent: the roles are part of it
        "input.value": json.dumps({"messages": ["system: be brief", "user: what is this?"]}),
        prefix.format(0) + "role": "system",
        prefix.format(0) + "content": "be brief",
        prefix.format(1) + "role": "user",
        prefix.format(1) + "content": "",
        prefix.format(1) + "contents.10.message_content.type": "text",
        prefix.format(1) + "contents.10.message_content.text": "in detail",
        prefix.format(1) + "contents.2.message_content.type": "text",
        prefix.format(1) + "contents.2.message_content.text": "what is this?",
        prefix.format(1) + "contents.3.message_content.type": "image",
        prefix.format(1) + "contents.3.message_content.image.image.url": "data:image/png;base64,iVBORw0KGgo",
    }
    console = {"name": "ChatCompletion", "context": {"trace_id": "0x1"}, "attributes": flat}
    assert list(read_prompts(put(tmp_path, "console.json", json.dumps(console)))) == ["what is this?\nin detail"]


@pytest.mark.parametrize("scope", ["scopeSpans", "instrumentationLibrarySpans"])
def test_tempo_batches(tmp_path, scope):
    step = span(gen_ai__operation__name="chat", gen_ai__input__messages=ASKED)
    trace = {"batches": [{"resource": {"attributes": []}, scope: [{"spans": [step, span(http__method="GET")]}]}]}
    assert list(read_prompts(put(tmp_path, "trace.json", json.dumps(trace)))) == ["asked"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "guess"])
@pytest.mark.parametrize("prompt", ['{"role": "user", "content": "x"}', '["x", "y"]', '{"prompt": "x"}'])
def test_a_string_that_looks_like_json_is_the_prompt(tmp_path, name, prompt):
    assert list(read_prompts(put(tmp_path, name, lines(prompt)))) == [prompt]


OLD = {"role": "user", "content": "an older question"}
REPLY = {"role": "assistant", "content": "an answer"}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo"}}]}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [OLD, REPLY, IMAGE]},
        {"messages": [OLD, REPLY, IMAGE], "text": "a note"},
        {"run_type": "llm", "inputs": {"messages": [[OLD, REPLY, IMAGE]]}},
        {"traceId": "t", "type": "GENERATION", "input": [OLD, REPLY, IMAGE]},
        span(gen_ai__input__messages=[OLD, REPLY, IMAGE], gen_ai__prompt=[OLD]),
        span(
            openinference__span__kind="LLM",
            llm__input_messages__0__message__role="user",
            llm__input_messages__0__message__content="an older question",
            llm__input_messages__1__message__role="user",
            llm__input_messages__1__message__contents__0__message_content__type="image",
        ),
        {
            **span(gen_ai__operation__name="chat"),
            "events": [
                {"name": "gen_ai.user.message", "attributes": [{"key": "content", "value": otlp("an older question")}]},
                {"name": "gen_ai.user.message", "attributes": [{"key": "content", "value": otlp(IMAGE["content"])}]},
            ],
        },
    ],
)
def test_an_image_alone_is_not_answered_by_an_older_question(tmp_path, record):
    reader = read_prompts(put(tmp_path, "a.jsonl", lines(record, {"prompt": "next"})))
    assert list(reader) == ["next"]
    assert reader.skipped == 1


@pytest.mark.parametrize(
    "results",
    [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"}]},
        {"role": "user", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "42"}]},
        {"role": "tool", "content": "42"},
    ],
)
def test_results_of_tools_are_not_what_the_user_said(results):
    assert routed_text([OLD, REPLY, results]) == "an older question"


@pytest.mark.parametrize(
    ("content", "field", "expected", "skipped"),
    [
        ('id,prompt\n1,one\n2,\n3,"  "\n4,four\n', None, ["one", "four"], 2),
        ("prompt,text\none,a note\n,another note\n", None, ["one"], 1),
        ("id,question\n1,one\n2,\n", "question", ["one"], 1),
        ("id,prompt\n1,one\n2\n", None, ["one"], 1),  # a row cut short
        ("id,prompt\n1,one\n2\n", "prompt", ["one"], 1),
        # a file of one column, whatever its name; one of several is not made one by empty cells
        ("Ask\none\n\ntwo\n", None, ["one", "two"], 1),
        (",Ask\n0,one\n1,two\n", None, ["one", "two"], 0),  # pandas writes its index without a name
        ("user,ask\nu1,\n,hello\n", None, [], 2),
        ("run_type,inputs\nllm,\ntool,to a tool\nllm,asked\n", None, ["asked"], 2),
        (
            "id,traceId,type,attributes,input\n1,t,GENERATION,,asked\n2,t,SPAN,,a step\n3,t,,,a trace\n",
            None,
            ["asked", "a trace"],
            1,
        ),
    ],
)
def test_csv_rows_without_a_prompt_are_counted_and_the_header_names_it(tmp_path, content, field, expected, skipped):
    reader = read_prompts(put(tmp_path, "a.csv", content), field=field)
    assert list(reader) == expected
    assert reader.skipped == skipped


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("columns", "field"),
    [
        (["id", "Prompt", "user"], None),
        (["a, b, and c", "prompt"], None),
        (["id", "what; was asked"], "what; was asked"),
        (["id\nof the row", "prompt"], None),
        (["id", "ask"], "ask"),
        (["prompt", ""], None),
    ],
)
def test_csv_separators(tmp_path, name, separator, columns, field):
    prompts = ["Hello, world; and you?", 'say "hi"\nthen go\tout', "a;b;c;d", "1,5"]
    text = io.StringIO(newline="")
    out = csv.writer(text, delimiter=separator)
    out.writerow(columns)
    for i, prompt in enumerate(prompts):
        out.writerow([prompt if c.lower() in {"prompt", field} else str(i) for c in columns])
    data = b"\xef\xbb\xbf" + text.getvalue().encode()
    file = put(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)
    assert list(read_prompts(file, field=field)) == prompts


def test_csv_of_one_column_may_hold_any_separator_when_quoted(tmp_path):
    assert list(read_prompts(put(tmp_path, "a.csv", 'prompt\n"a;b, c"\nd;e\n'))) == ["a;b, c", "d;e"]


def test_csv_separator_is_that_of_the_ending_where_the_header_tells_none(tmp_path):
    assert list(read_prompts(put(tmp_path, "a.tsv", "prompt\nx, y; z\n"))) == ["x, y; z"]
    assert list(read_prompts(put(tmp_path, "a.csv", "prompt\nx\ty; z\n"))) == ["x\ty; z"]


def test_csv_header_with_a_quote_of_its_own_does_not_read_the_file_into_memory(tmp_path):
    file = put(tmp_path, "a.csv", 'disk of 5";prompt\n' + f"1;{'x' * 1000}\n" * 8000)
    tracemalloc.start()
    assert sum(1 for _ in read_prompts(file)) == 8000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_csv_row_with_more_cells_than_the_header_is_named(tmp_path):
    file = put(tmp_path, "a.csv", "id,prompt\n1,fine,,\n2,cut at the comma, here\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: 3 cells, but the header names 2 columns; quote cells"):
        list(read_prompts(file))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,user.prompt\n1,dotted\n"),
        ("b.csv", 'id,User.Prompt,user\n1,dotted,"{""prompt"": ""deep""}"\n'),
        ("c.csv", 'id,user\n1,"{""prompt"": ""dotted""}"\n'),
        ("a.jsonl", lines({"user.prompt": "dotted", "user": {"prompt": "deep"}})),
    ],
)
def test_field_with_a_dot_is_a_name_before_it_is_a_path(tmp_path, name, content):
    assert list(read_prompts(put(tmp_path, name, content), field="user.prompt")) == ["dotted"]


def test_field_that_a_csv_lacks_is_told_with_its_columns(tmp_path):
    file = put(tmp_path, "a.csv", "Id;Ask\n1;one\n")
    with pytest.raises(DataError, match=r"a\.csv, line 2: there is no field 'prompt'; it has: Id, Ask"):
        list(read_prompts(file, field="prompt"))


@pytest.mark.parametrize(
    "content",
    [
        "[INST] write a poem [/INST]\nsecond prompt\n",
        "[1] What is the capital of France?\n[2] And of Spain?\n",
        '["a", "b"',
        "{name}, please write a poem\nsecond prompt\n",
        '"To be or not to be", who said so?\n',
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_text_that_begins_like_json_is_told_the_option(tmp_path, content, zipped):
    data = content.encode()
    file = put(tmp_path, "prompts.gz" if zipped else "prompts", gzip.compress(data) if zipped else data)
    with pytest.raises(DataError, match=r"prompts.*(line|item) 1|prompts.*item [23]") as told:
        list(read_prompts(file))
    assert "--format text" in str(told.value)
    assert list(read_prompts(file, format="text")) == content.splitlines()


def test_what_follows_an_array_is_not_passed_over(tmp_path):
    file = put(tmp_path, "a.json", '[{"prompt": "one"}]\n[{"prompt": "two"}]\n')
    with pytest.raises(DataError, match=r"a\.json, after item 1: .*--format jsonl"):
        list(read_prompts(file))
    assert list(read_prompts(put(tmp_path, "b.json", ' [{"prompt": "one"}] \n\n'))) == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "field", "words"),
    [
        ("a.jsonl", '{"prompt": "one"}\n{"prompt": \n{"prompt": "two"}\n', None, "line 2: not JSON"),
        ("a.csv", "prompt,n\none,1\nbad, unquoted,2\ntwo,3\n", None, "line 3: 3 cells"),
        ("a.jsonl", '{"q": "one"}\n{"prompt": "x"}\n{"q": "two"}\n', "q", "line 2: there is no field 'q'"),
    ],
)
def test_malformed_rows_are_left_out_where_that_is_asked_for(tmp_path, name, content, field, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        list(read_prompts(tmp_path / name, field=field))
    bad = SkippedRows()
    reader = read_prompts(tmp_path / name, field=field, skip_bad=bad)
    assert list(reader) == ["one", "two"]
    assert (bad.count, reader.skipped) == (1, 0)
    assert words in bad.first[0]
