"""What holds a key is pickled without it, or not at all; another process has its key in its own environment."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from routellm_core import ConfigurationError, WinRates
from routellm_core.checks import is_secret_name, no_key_inside
from routellm_core.embedders import CachedEmbedder, OpenAIEmbedder
from routellm_core.embedders.base import WrappedEmbedder
from routellm_core.labelling import CallError, LLMChatModel, OpenAIChatModel
from routellm_core.serve.controller import Controller
from tests.support.openai_server import OpenAIServer
from tests.support.routers import ScriptedRouter

KEY = "sk-not-to-be-seen"
OWN_KEY = "sk-of-the-worker"
SECRET_NAMES = """
    api_key apiKey openai_api_key x-api-key key subscription_key aws_access_key_id aws_secret_access_key private_key
    huggingfacehub_api_token api_token token hf_token access_token auth_token azure_ad_token accessToken client_secret
    password passwd credentials google_credentials credentials_json auth Authorization Cookie headers
"""
PUBLIC_NAMES = """
    max_tokens tokenizer tokenizer_name token_limit eos_token pad_token input_key cache_key keywords monkey author
    credentials_profile_name headline model_name
"""


class Secret:
    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


class Model:
    """A model of a framework, which holds its key in whatever way."""

    model_name = "theirs"

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    async def ainvoke(self, messages: Any) -> Any:
        return SimpleNamespace(content="fine")


class Wrapped(WrappedEmbedder):
    def _embed(self, texts: list[str]) -> Any:
        return [[0.0]] * len(texts)

    async def _aembed(self, texts: list[str]) -> Any:
        return self._embed(texts)


class Embedded(ScriptedRouter):
    """A router with something that holds a key."""

    def __init__(self, embedder: Any) -> None:
        super().__init__()
        self.embedder = embedder


def upstream() -> Any:
    pytest.importorskip("aiohttp")
    from routellm_core.serve.upstream import Upstream

    return Upstream("m", key=KEY)


@pytest.fixture(params=["pickle", "cloudpickle"])
def dumps(request: pytest.FixtureRequest) -> Callable[[Any], bytes]:
    return pytest.importorskip(request.param).dumps


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: OpenAIChatModel("m", api_key=KEY, temperature=0),
        lambda folder: OpenAIEmbedder("m", api_key=KEY),
        lambda folder: CachedEmbedder(OpenAIEmbedder("m", api_key=KEY), folder / "cache.db"),
        lambda folder: WinRates(Embedded(OpenAIEmbedder("m", api_key=KEY))),
    ],
    ids=["chat", "embedder", "cached", "router"],
)
def test_a_client_leaves_its_key_behind(make: Any, tmp_path: Any, dumps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    made = make(tmp_path)
    written = dumps(made)
    assert KEY.encode() not in written
    assert type(pickle.loads(written)) is type(made)


@pytest.mark.parametrize(
    "make",
    [
        upstream,
        lambda: Controller(["random"], "a", "b", api_key=KEY),
        lambda: LLMChatModel(Model(api_key=KEY)),
        lambda: LLMChatModel(Model(whatever=Secret(KEY))),
        lambda: LLMChatModel(Model(default_headers={"Authorization": f"Bearer {KEY}"})),
        lambda: LLMChatModel(Model(credentials=SimpleNamespace(signer=KEY))),
        lambda: LLMChatModel(Model(api_base=f"https://me:{KEY}@example.com/v1")),
        lambda: Wrapped(Model(openai_api_key=KEY)),
        lambda: WinRates(Embedded(Wrapped(Model(api_key=KEY)))),
        lambda: OpenAIChatModel("m", api_key=KEY, extra_headers={"api-key": KEY}),
        lambda: OpenAIChatModel("m", api_key=KEY, base_url=f"https://example.com/v1?code={KEY}"),
        lambda: OpenAIEmbedder("m", api_key=KEY, base_url=f"https://me:{KEY}@example.com/v1"),
    ],
)
def test_what_cannot_do_without_its_key_is_not_pickled(make: Any, dumps: Any) -> None:
    made = make()
    if isinstance(made, Controller):  # a server's front, with locks and routers
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            dumps(made)
        return
    with pytest.raises(ConfigurationError, match="cannot be pickled, because the key in its") as caught:
        dumps(made)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    with pytest.raises(ConfigurationError, match="cannot be pickled") as caught:
        no_key_inside(Model(**{name: KEY}), owner="it")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", PUBLIC_NAMES.split())
def test_names_that_only_look_like_those_of_secrets(name: str) -> None:
    assert not is_secret_name(name)
    no_key_inside(Model(**{name: "text"}), owner="it")


def test_a_model_without_a_key_is_pickled(dumps: Any) -> None:
    model = pickle.loads(dumps(LLMChatModel(Model(max_tokens=5, api_key="", api_base="http://127.0.0.1:8000/v1"))))
    assert asyncio.run(model.ask(None, "hi")).text == "fine"
    assert len(pickle.loads(dumps(Wrapped(Model()))).embed(["a", "b"])) == 2


def test_the_other_process_takes_the_key_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer() as server:
        chat = OpenAIChatModel("m", base_url=server.base_url, api_key=KEY, key_env="MY_KEY")
        there = pickle.loads(pickle.dumps(chat))
        embedder = pickle.loads(pickle.dumps(OpenAIEmbedder("m", base_url=server.base_url, api_key=KEY)))
        # an exception on arrival would kill a worker and leave its pool waiting, so the first use raises it
        with pytest.raises(CallError, match="MY_KEY is not set") as caught:
            asyncio.run(there.ask(None, "hi"))
        assert caught.value.fatal
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
            embedder.embed(["a"])
        with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
            asyncio.run(embedder.aembed(["a"]))
        assert not server.requests
        monkeypatch.setenv("MY_KEY", OWN_KEY)
        monkeypatch.setenv("OPENAI_API_KEY", OWN_KEY)
        asyncio.run(there.ask(None, "hi"))
        embedder.embed(["a"])
        assert [request.authorization for request in server.requests] == [f"Bearer {OWN_KEY}"] * 2


def test_copies_in_this_process_share_the_client_and_its_key() -> None:
    for made in (OpenAIChatModel("m", api_key=KEY), OpenAIEmbedder("m", api_key=KEY), Wrapped(Model(api_key=KEY))):
        assert copy.deepcopy(made) is made
