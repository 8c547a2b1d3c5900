"""Embedders by name, as ``--embedder`` takes them, and a router that is trained on one of the user's own."""

import json
import sys

import numpy as np
import pytest

from routellm_core import ConfigurationError, load_router
from routellm_core.data import Outcome, write_records
from routellm_core.embedders import OpenAIEmbedder, bundled_embedder, embedder_from_name

SOURCE = '''
import numpy as np

class Mine:
    """Says of a text how long it is and how many digits it has."""
    dimension = 3
    def embed(self, texts):
        rows = [[1.0, len(t) / 10, sum(c.isdigit() for c in t)] for t in texts]
        return np.array(rows, dtype=np.float32)
    async def aembed(self, texts):
        return self.embed(texts)

class Wants(Mine):
    def __init__(self, key):
        self.key = key

class Fails(Mine):
    def __init__(self):
        raise RuntimeError("no key")

class Half:
    dimension = 3
    def embed(self, texts):
        return None

mine = Mine()
number = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "acme_embedders.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "acme_embedders"
    sys.modules.pop("acme_embedders", None)


def test_the_names_of_ours(tmp_path):
    assert embedder_from_name("bundled") is bundled_embedder()
    bundled_embedder().save_pretrained(tmp_path)
    assert embedder_from_name(str(tmp_path)).fingerprint == bundled_embedder().fingerprint  # type: ignore[attr-defined]


def test_openai_takes_any_model(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    for model in ("text-embedding-3-small", "ada"):
        found = embedder_from_name(f"openai:{model}")
        assert isinstance(found, OpenAIEmbedder)
        assert found.model == model


def test_a_class_or_an_object_of_your_own(module):
    for name in ("Mine", "mine"):
        found = embedder_from_name(f"{module}:{name}")
        assert type(found).__name__ == "Mine"
        assert found.embed(["a1"]).tolist() == [[1.0, np.float32(0.2), 1.0]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("word2vec", r"embedder='word2vec': expected bundled, openai:MODEL, the directory .* package\.module:Class"),
        ("acme_absent:Mine", "module acme_absent cannot be imported: ModuleNotFoundError"),
        ("acme_embedders:Absent", "module acme_embedders has no attribute 'Absent'"),
        ("acme_embedders:Wants", "cannot be constructed without arguments: .*key"),
        ("acme_embedders:Half", "is a Half, not an Embedder: it needs embed"),
        ("acme_embedders:number", "is a int, not an Embedder"),
        (":Mine", "module"),
    ],
)
def test_what_leads_to_no_embedder_says_why(module, name, said):
    with pytest.raises(ConfigurationError, match=said):
        embedder_from_name(name)


def test_an_error_of_its_constructor_is_not_hidden(module):
    with pytest.raises(RuntimeError, match="no key"):
        embedder_from_name(f"{module}:Fails")


def test_the_command_line_trains_with_it(module, tmp_path):
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner

    from routellm_core.commands import train

    app = typer.Typer()
    app.add_typer(train.app)
    outcomes = [
        Outcome(prompt="x" * (1 + i % 9) + str(i) * (i % 2), scores={"big": 1.0, "small": float(i % 2)})
        for i in range(120)
    ]
    write_records(tmp_path / "outcomes.jsonl", outcomes)
    arguments = ["train", "knn", "--data", str(tmp_path / "outcomes.jsonl"), "--strong", "big", "--weak", "small"]
    arguments += ["--out", str(tmp_path / "out"), "--embedder", f"{module}:Mine"]
    arguments += ["--embedding-cache", str(tmp_path / "cache.sqlite")]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None, result.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["embedder"] is None
    with pytest.raises(ConfigurationError, match="pass embedder="):
        load_router(tmp_path / "out")
    own = embedder_from_name(f"{module}:Mine")
    router = load_router(tmp_path / "out", embedder=own)
    assert router.win_rates(["xxx", "xxx777"]).tolist() == sorted(router.win_rates(["xxx", "xxx777"]), reverse=True)
