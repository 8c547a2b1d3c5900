"""Readers of traffic: every format and export, streamed, with clear words for what is malformed."""

import csv
import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routellm_core import ConfigurationError, DataError
from routellm_core.traffic import read_prompts, routed_text


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
    with pytest.raises(DataError, match=r"line 1: no field 'inputs.q'; it has: ask"):
        list(read_prompts(file, field="inputs.q"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"prompt": "ok"}\n{"prompt": \n', "line 2: not JSON"),
        ("a.json", '[{"prompt": "ok"}, {"prom', "item 2: not JSON"),
        ("b.json", '[{"prompt": "ok"},', "cut off"),
        ("latin.txt", b"caf\xe9\n", "not UTF-8"),
        ("cut.txt.gz", gzip.compress(b"hello\n" * 5000)[:-30], "damaged gzip"),
    ],
)
def test_malformed_files_are_named_with_the_place(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words):
        list(read_prompts(put(tmp_path, name, content)))


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(ConfigurationError, match="format='xml'"):
        read_prompts(put(tmp_path, "a", ""), format="xml")


def test_an_empty_file_has_no_prompts(tmp_path):
    for name in ("a.txt", "a.jsonl", "a.json", "a.csv", "a"):
        assert list(read_prompts(put(tmp_path, name, ""))) == []


def test_a_record_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("routellm_core.traffic.MAX_RECORD_CHARS", 10_000)
    monkeypatch.setattr("routellm_core.traffic._CHUNK", 4096)
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


@given(
    st.lists(st.text().filter(lambda t: t.strip() and not t.startswith(("[", "{"))), max_size=20), st.integers(3, 40)
)
def test_json_array_is_read_the_same_whatever_the_chunk(tmp_path_factory, texts, chunk):
    import routellm_core.traffic as traffic

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
