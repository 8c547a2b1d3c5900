"""Routers of your own: a class with one method, functions, and objects that score prompts."""

import asyncio
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from routellm_core import Calibration, CheckpointError, ConfigurationError, PromptError, Router, RouterError
from routellm_core.embedders import bundled_embedder
from routellm_core.routers import FunctionRouter, as_router, load_router
from routellm_core.routers.embedding import EmbeddingRouter
from tests.support.waiting import LIMIT, until

PROMPTS = ["hi", "hello there"]
RATES = [0.02, 0.11]


class Short(Router):
    def _win_rates(self, prompts):
        return [len(prompt) / 100 for prompt in prompts]


class Service(Router):
    name = "service"

    def __init__(self, factor=1.0):
        self.factor = factor
        self.loops = []

    async def _awin_rates(self, prompts):
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        return [self.factor * len(prompt) / 100 for prompt in prompts]


def by_length(prompts):
    return [len(prompt) / 100 for prompt in prompts]


async def by_service(prompts):
    await asyncio.sleep(0)
    return by_length(prompts)


class AsyncCallable:
    async def __call__(self, prompts):
        return by_length(prompts)


class Scores:
    def win_rates(self, prompts):
        return np.array(by_length(prompts))


class ScoresAsync:
    async def awin_rates(self, prompts):
        return by_length(prompts)


class ScoresAsyncByTheOtherName:
    async def win_rates(self, prompts):
        return by_length(prompts)


class ScoresBoth:
    """Says which of its methods was asked."""

    def win_rates(self, prompts):
        return [0.25 for _ in prompts]

    async def awin_rates(self, prompts):
        return [0.75 for _ in prompts]


class Offset:
    def __init__(self, offset):
        self.offset = offset

    def rates(self, prompts):
        return [rate + self.offset for rate in by_length(prompts)]


KINDS = {
    "class": Short(),
    "async class": Service(),
    "function": by_length,
    "lambda": lambda prompts: [len(prompt) / 100 for prompt in prompts],
    "async function": by_service,
    "lambda of an async function": lambda prompts: by_service(prompts),
    "partial": functools.partial(by_length),
    "partial of an async function": functools.partial(by_service),
    "bound method": Offset(0.0).rates,
    "async callable": AsyncCallable(),
    "object": Scores(),
    "async object": ScoresAsync(),
    "object with async win_rates": ScoresAsyncByTheOtherName(),
}


@pytest.fixture(params=KINDS)
def router(request):
    return as_router(KINDS[request.param])


def test_it_is_a_router_in_synchronous_code(router):
    assert isinstance(router, Router)
    for _ in range(2):
        rates = router.win_rates(PROMPTS)
        assert rates.dtype == np.float64
        assert rates.tolist() == RATES
    with pytest.raises(PromptError):
        router.win_rates("bare")


async def test_it_is_a_router_in_asynchronous_code(router):
    assert (await router.awin_rates(PROMPTS)).tolist() == RATES
    # synchronously, although this thread runs a loop
    assert router.win_rates(PROMPTS).tolist() == RATES
    assert [r.tolist() for r in await asyncio.gather(*(router.awin_rates([p]) for p in PROMPTS))] == [
        [r] for r in RATES
    ]


def test_it_serves_many_threads(router):
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, router.win_rates(["x" * i])[0])) for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i / 100 for i in range(20)}


def test_a_calibration_is_tied_to_it(router):
    calibration = Calibration.fit(router, PROMPTS)
    assert calibration.router == router.name
    calibration.check_router(router)
    with pytest.raises(ConfigurationError, match="fingerprint"):
        calibration.check_router(load_router("random"))


def test_it_pickles_where_its_source_does(router):
    source = router.source if isinstance(router, FunctionRouter) else None
    if getattr(source, "__name__", "") == "<lambda>":
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(router)
        return
    if isinstance(router, Service):
        router = Service()  # one that keeps no loop
    again = pickle.loads(pickle.dumps(router))
    assert again.win_rates(PROMPTS).tolist() == RATES
    assert (again.name, again.fingerprint) == (router.name, router.fingerprint)


def test_names():
    assert {kind: as_router(value).name for kind, value in KINDS.items()} == {
        "class": "Short",
        "async class": "service",
        "function": "by_length",
        "lambda": "<lambda>",
        "async function": "by_service",
        "lambda of an async function": "<lambda>",
        "partial": "by_length",
        "partial of an async function": "by_service",
        "bound method": "rates",
        "async callable": "AsyncCallable",
        "object": "Scores",
        "async object": "ScoresAsync",
        "object with async win_rates": "ScoresAsyncByTheOtherName",
    }

    class Named(Short):
        name = "named"

    class Inherits(Named):
        pass

    class Unnamed(Short):
        pass

    assert (Named.name, Inherits().name, Unnamed().name, Router.name) == ("named", "named", "Unnamed", "Router")


def test_a_router_stands_for_itself_and_a_text_for_a_name(tmp_path):
    router = Short()
    assert as_router(router) is router
    assert as_router(None).fingerprint == as_router("mf").fingerprint == load_router().fingerprint
    load_router("random", seed=3).save_pretrained(tmp_path)
    assert as_router(str(tmp_path)).seed == as_router(tmp_path).seed == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [3, 0.5, b"mf", object(), [0.1], {}, Calibration.from_win_rates([0.5]), True])
def test_anything_else_is_refused_with_what_is_allowed(value):
    with pytest.raises(ConfigurationError, match=r"router=.*a Router, a name .* function .* win_rates\(prompts\)"):
        as_router(value)


@pytest.mark.parametrize("cls", [Short, Scores, dict, int])
def test_a_class_is_not_a_function(cls):
    with pytest.raises(ConfigurationError, match=rf"router={cls.__name__} is a class: pass an instance"):
        as_router(cls)


def test_the_synchronous_and_the_asynchronous_method_of_an_object_are_used_each_in_its_place():
    router = as_router(ScoresBoth())
    assert router.win_rates(["a"]).tolist() == [0.25]
    assert asyncio.run(router.awin_rates(["a"])).tolist() == [0.75]


def test_attributes_of_a_source_are_used():
    calibration = Calibration.from_win_rates([0.1, 0.2])

    class Known(Scores):
        name = "known"
        fingerprint = "abc"

    known = Known()
    known.calibration = calibration  # type: ignore[attr-defined]
    router = as_router(known)
    assert (router.name, router.fingerprint, router.calibration) == ("known", "abc", calibration)

    known.calibration = 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="calibration=3 of router 'known'"):
        as_router(known)
    known.calibration = None  # type: ignore[attr-defined]
    known.fingerprint = lambda: "abc"  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="fingerprint of router 'known'"):
        as_router(known)
    with pytest.raises(ConfigurationError, match=r"version=\(1, 2\)"):
        as_router(type("Versioned", (Scores,), {"version": (1, 2)})())


def test_the_fingerprint_is_that_of_the_qualified_name_and_the_version():
    class Versioned(Router):
        def __init__(self, version=None):
            self.version = version

        def _win_rates(self, prompts):
            return by_length(prompts)

    versions = [None, 1, "1", "2", 1.5]
    assert len({Versioned(v).fingerprint for v in versions}) == len(versions)
    assert Versioned("2").fingerprint == Versioned("2").fingerprint
    assert Versioned().fingerprint != Short().fingerprint
    with pytest.raises(ConfigurationError, match=r"version=\[1\] of .*Versioned: expected a string or a number"):
        _ = Versioned([1]).fingerprint

    one, two = (as_router(lambda prompts: [0.1 for _ in prompts]), as_router(lambda prompts: [0.2 for _ in prompts]))
    assert one.fingerprint != two.fingerprint
    same = [as_router(lambda prompts: [0.1 if p in {"a", "b", "c"} else 0.2 for p in prompts]) for _ in range(2)]
    assert same[0].fingerprint == same[1].fingerprint

    def mine(prompts):
        return by_length(prompts)

    before = as_router(mine).fingerprint
    mine.version = "2"  # type: ignore[attr-defined]
    assert as_router(mine).fingerprint not in (before, as_router(by_length).fingerprint)


def test_fingerprints_are_the_same_in_every_process():
    code = (
        "from routellm_core.routers import as_router\n"
        "print(as_router(lambda ps: [0.1 if p in {'a', 'b', 'c', 'd'} else 0.2 for p in ps]).fingerprint)\n"
        "def f(ps): return [0.1] * len(ps)\n"
        "print(as_router(f).fingerprint)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(outputs) == 1


@pytest.mark.parametrize(
    "values",
    [
        [0.02, 0.11],
        (0.02, 0.11),
        [Fraction(1, 50), Decimal("0.11")],
        [np.float64(0.02), 0.11],
        *(np.array([0.02, 0.11], dtype=kind) for kind in ("float16", "float32", "float64", "longdouble", object)),
    ],
)
def test_real_numbers_of_every_type_are_win_rates(values):
    found = as_router(lambda prompts: values).win_rates(PROMPTS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, RATES, rtol=1e-3)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64", "bool"])
def test_so_are_whole_numbers(kind):
    assert as_router(lambda prompts: np.array([0, 1], dtype=kind)).win_rates(PROMPTS).tolist() == [0.0, 1.0]


WRONG = [
    [0.5],
    [0.5, 0.5, 0.5],
    [],
    0.5,
    None,
    "ab",
    ["0.1", "0.2"],
    [b"0.1", b"0.2"],
    [0.1, None],
    [0.1, float("nan")],
    [0.1, float("inf")],
    [0.1, 1.0000001],
    [-1e-9, 0.1],
    [2, 0],
    [[0.1], [0.2]],
    [[0.1], [0.2, 0.3]],
    {"hi": 0.1, "hello there": 0.2},
    {0.1, 0.2},
    [0.1 + 0j, 0.2 + 0j],
    [0.1, 0.2 + 1j],
    np.array([0.1, 0.2], dtype=np.complex64),
    np.array([0.1, 0.2 + 1j], dtype=object),
    np.array([0.1, np.nan], dtype=np.float16),
    np.array(["0.1", "0.2"], dtype=object),
    np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"),
    (rate for rate in [0.1, 0.2]),
]


@pytest.mark.parametrize("values", WRONG, ids=[f"{i} {type(v).__name__}" for i, v in enumerate(WRONG)])
def test_what_is_not_win_rates_is_an_error(values):
    router = as_router(lambda prompts: values)
    with pytest.raises(RouterError, match="router '<lambda>' returned"):
        router.win_rates(PROMPTS)
    with pytest.raises(RouterError, match="router '<lambda>' returned"):
        asyncio.run(router.awin_rates(PROMPTS))


def test_an_array_that_cannot_be_read_is_an_error_of_the_router():
    class OnAnotherDevice:
        def __array__(self, *args, **kwargs):
            raise TypeError("can't convert a tensor on a GPU")

    with pytest.raises(RouterError, match="OnAnotherDevice that is not an array of numbers"):
        as_router(lambda prompts: OnAnotherDevice()).win_rates(PROMPTS)


def test_a_function_that_changes_its_argument_is_still_checked_against_what_was_asked():
    def consumes(prompts):
        return [0.1 for _ in iter(lambda: prompts.pop() if len(prompts) > 1 else None, None)]

    with pytest.raises(RouterError, match="2 prompts"):
        as_router(consumes).win_rates(PROMPTS)


async def test_errors_of_the_function_are_raised_as_they_are():
    class OutOfServiceError(Exception):
        pass

    def fails(prompts):
        raise OutOfServiceError

    async def fails_later(prompts):
        await asyncio.sleep(0)
        raise OutOfServiceError

    for function in (fails, fails_later):
        with pytest.raises(OutOfServiceError):
            as_router(function).win_rates(["a"])
        with pytest.raises(OutOfServiceError):
            await as_router(function).awin_rates(["a"])


async def test_a_synchronous_function_does_not_block_the_loop():
    started, go_on = threading.Event(), threading.Event()

    def waits(prompts):
        started.set()
        assert go_on.wait(LIMIT)
        return [0.5]

    asked = asyncio.ensure_future(as_router(waits).awin_rates(["a"]))
    await until(started.is_set)
    assert not asked.done()
    go_on.set()
    assert (await asked).tolist() == [0.5]


def test_a_class_that_cannot_route_is_refused_at_construction():
    class Nothing(Router):
        name = "nothing"

    class PublicOnly(Router):
        def win_rates(self, prompts):
            return by_length(prompts)

    class WrongName(Router):
        async def _win_rates(self, prompts):
            return by_length(prompts)

    for cls in (Router, Nothing, PublicOnly):
        with pytest.raises(ConfigurationError, match=rf"{cls.__name__} cannot route: .*_win_rates.*_awin_rates"):
            cls()
    with pytest.raises(ConfigurationError, match=r"WrongName\._win_rates is async.*_awin_rates"):
        WrongName()


def test_a_class_without_a_constructor_takes_no_arguments():
    with pytest.raises(TypeError, match=r"Short\(\) takes no arguments"):
        Short(3)
    with pytest.raises(TypeError, match=r"Short\(\) takes no arguments"):
        Short(factor=3)


def test_saving_says_what_to_write(tmp_path):
    class HalfSaved(Short):
        def _save(self, path):
            return {}

    for router in (Short(), Service(), HalfSaved(), as_router(by_length)):
        with pytest.raises(
            ConfigurationError, match=r"cannot be saved or loaded: .*_save\(self, path\).*_load\(cls, path"
        ):
            router.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    load_router("random").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="'random' router, not 'Short'"):
        Short.from_pretrained(tmp_path)


def test_a_subclass_of_a_built_in_kind_has_a_fingerprint_of_its_embedder():
    class Norm(EmbeddingRouter):
        def __init__(self, embedder):
            self.embedder, self.dimension = embedder, embedder.dimension

        def _of_embeddings(self, matrix):
            return np.minimum(1.0, np.linalg.norm(matrix, axis=1) / 100)

    class Other:
        dimension = 4

        def embed(self, texts):
            return np.ones((len(texts), 4), dtype=np.float32)

        async def aembed(self, texts):
            return self.embed(texts)

    assert Norm(bundled_embedder()).win_rates(PROMPTS).shape == (2,)
    assert Norm(bundled_embedder()).fingerprint == Norm(bundled_embedder()).fingerprint != Norm(Other()).fingerprint
    with pytest.raises(TypeError, match="abstract"):
        EmbeddingRouter()  # type: ignore[abstract]


def test_an_asynchronous_router_finds_the_same_loop_in_every_synchronous_call():
    # the connections of an asynchronous client belong to one loop
    router = Service()
    router.win_rates(["a"])
    asyncio.run(in_a_running_loop(router))
    router.win_rates(["a"])
    assert len(set(map(id, router.loops))) == 1


async def in_a_running_loop(router):
    router.win_rates(["a"])


def test_an_asynchronous_router_may_ask_another_one_synchronously():
    inner = Service()

    async def outer(prompts):
        return inner.win_rates(prompts)

    assert as_router(outer).win_rates(PROMPTS).tolist() == RATES


def test_context_variables_reach_an_asynchronous_router():
    from contextvars import ContextVar

    tenant = ContextVar("tenant", default=0.0)

    async def rates(prompts):
        return [tenant.get() for _ in prompts]

    tenant.set(0.75)
    assert as_router(rates).win_rates(["a"]).tolist() == [0.75]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_loop_of_its_own():
    router = Service()
    assert router.win_rates(PROMPTS).tolist() == RATES
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, b"ok" if router.win_rates(PROMPTS).tolist() == RATES else b"wrong")
        finally:
            os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 10) == b"ok"
    os.close(reading)


def test_a_process_that_used_an_asynchronous_router_ends_without_a_warning():
    code = (
        "import asyncio\n"
        "from routellm_core.routers import as_router\n"
        "async def f(prompts):\n"
        "    return [0.5 for _ in prompts]\n"
        "print(as_router(f).win_rates(['a']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0.5]\n", "")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_an_interrupted_call_is_cancelled():
    cancelled = threading.Event()
    started = threading.Event()

    async def hangs(prompts):
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt():
        assert started.wait(LIMIT)
        main = threading.main_thread().ident
        while sys._current_frames()[main].f_code is not threading.Condition.wait.__code__:  # type: ignore[index]
            time.sleep(0.001)  # until the call waits; an interrupt before that is another, simpler case
        signal.pthread_kill(main, signal.SIGINT)  # type: ignore[arg-type]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            as_router(hangs).win_rates(["a"])
        assert cancelled.wait(LIMIT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_dataclass_may_be_a_router():
    @dataclass(frozen=True)
    class Scaled(Router):
        scale: float = 100.0

        def _win_rates(self, prompts):
            return [len(prompt) / self.scale for prompt in prompts]

        @property
        def version(self):  # type: ignore[override]
            return self.scale

    assert Scaled(200.0).win_rates(["hi"]).tolist() == [0.01]
    assert Scaled().name == "Scaled"
    assert Scaled(200.0).fingerprint == Scaled(200.0).fingerprint != Scaled().fingerprint
