"""The server's cost: CPU and time that it adds to a request, many at once, a soak with faults.

    python benchmarks/serve.py                               # the server beside its upstream called directly
    python benchmarks/serve.py --litellm VENV/bin/litellm    # LiteLLM's proxy too, from an environment of its own
    python benchmarks/serve.py --soak 200000                 # faults; memory, connections and counters

Upstream, server and load generator are processes of their own on one machine: requests a second are bounded by all
three, CPU a request (of the server's process alone) is not. Rounds alternate between the candidates. No prompt comes
twice, so that the router works for each.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

TICKS = os.sysconf("SC_CLK_TCK")
QUESTION = "Explain why the sky is blue, in one paragraph for a child of ten years. " * 4
numbers = itertools.count()
ROOT = Path(__file__).resolve().parent.parent

UPSTREAM = """
import json, random, sys, uvicorn
ANSWER = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 200}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 200, "total_tokens": 260}}).encode()
FRAME = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\\n\\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\\n\\ndata: [DONE]\\n\\n'
async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    fault = dict(scope["headers"]).get(b"x-fault", b"")
    if fault == b"500":
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
    elif fault == b"cut":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99999")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        return  # without its end, uvicorn cuts the connection
    elif b'"stream": true' in body:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(20):
            await send({"type": "http.response.body", "body": FRAME, "more_body": True})
        await send({"type": "http.response.body", "body": LAST})
    else:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off", access_log=False)
"""


def body(model: str, **more: object) -> dict[str, object]:
    """A request with a prompt of its own."""
    question = f"{QUESTION}Question {next(numbers)}."
    return {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0.2, **more}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(words: list[str], port: int, *, path: str = "/health", seconds: float = 120) -> Iterator[int]:
    """Run a command until the block ends; yields its process id once its port answers."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'core'}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    env["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # its proxy does not start without a key
    running = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if running.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{words[0]} {words[1]} did not start") from None
                time.sleep(0.1)
        yield running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def megabytes(pid: int) -> float:
    """Resident memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def one_at_a_time(session: aiohttp.ClientSession, url: str, model: str, count: int) -> list[float]:
    """Seconds of each of `count` requests in a row."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        async with session.post(url, json=body(model)) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"{url}: status {answer.status}: {(await answer.text())[:300]}")
        times.append(time.perf_counter() - start)
    return times


async def at_once(session: aiohttp.ClientSession, url: str, model: str, count: int, width: int) -> float:
    """Requests a second, `width` at once."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            async with session.post(url, json=body(model)) as answer:
                await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{url}: status {answer.status}")

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return count / (time.perf_counter() - start)


async def measure(candidates: dict[str, tuple[str, str, int | None]], rounds: int, count: int) -> None:
    rows: dict[str, dict[str, list[float]]] = {name: {"s": [], "rate": [], "cpu": []} for name in candidates}
    # shorter than the five seconds after which uvicorn closes a connection, also that of LiteLLM's proxy
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2)) as session:
        for url, model, _ in candidates.values():  # warm up
            await one_at_a_time(session, url, model, 20)
        for _ in range(rounds):
            for name, (url, model, pid) in candidates.items():
                share = count if name != "litellm" else max(count // 10, 20)
                rows[name]["s"] += await one_at_a_time(session, url, model, share // 4)
                before = cpu_seconds(pid) if pid else 0.0
                rows[name]["rate"].append(await at_once(session, url, model, share, min(256, share)))
                if pid:
                    rows[name]["cpu"].append((cpu_seconds(pid) - before) / share * 1e3)
    direct = statistics.median(rows["direct"]["s"]) * 1e3
    heads = ("one request, ms", "added, ms", "256 at once, 1/s", "CPU, ms", "1/s a core", "MB")
    print(" " * 12 + "".join(f"{head:>18}" for head in heads))
    for name, (_, _, pid) in candidates.items():
        median = statistics.median(rows[name]["s"]) * 1e3
        cpu = min(rows[name]["cpu"]) if rows[name]["cpu"] else 0.0
        print(
            f"{name:12}{median:18.2f}{median - direct:18.2f}{max(rows[name]['rate']):18.0f}"
            + (f"{cpu:18.2f}{1e3 / cpu:18.0f}{megabytes(pid):18.0f}" if pid and cpu else "")
        )


async def soak(url: str, origin: str, pid: int, count: int) -> None:
    """Requests of all kinds, with faults and clients that go away; what is left behind is printed."""
    rng = random.Random(0)
    seen: Counter[str] = Counter()
    routed = 0
    left = iter(range(count))

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal routed
        for i in left:
            kind = rng.choices(["plain", "stream", "500", "cut", "gone", "bad"], [60, 20, 5, 5, 5, 5])[0]
            seen[kind] += 1
            headers = {"x-fault": kind} if kind in ("500", "cut") else {}
            try:
                if kind == "bad":
                    async with session.post(url, data=b"{") as answer:
                        await answer.read()
                    continue
                routed += 1
                async with session.post(
                    url, json=body("routellm", stream=kind in ("stream", "gone")), headers=headers
                ) as answer:
                    if kind == "gone":
                        await answer.content.readany()
                        answer.close()
                    else:
                        await answer.read()
            except aiohttp.ClientError:
                pass
            if i % (count // 10) == 0:
                print(f"{i:8} requests: {megabytes(pid):6.1f} MB, {open_files(pid)} open files", flush=True)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(32)))
        await asyncio.sleep(6)  # unused connections are closed after four seconds
        async with session.get(f"{origin}/metrics") as answer:
            metrics = await answer.text()
    counted = sum(float(v) for v in re.findall(r"^routellm_requests_total\{.*\} (.*)$", metrics, re.MULTILINE))
    refused = sum(float(v) for v in re.findall(r"^routellm_refused_total\{.*\} (.*)$", metrics, re.MULTILINE))
    still = re.search(r"^routellm_open_requests (.*)$", metrics, re.MULTILINE)
    print(f"{count:8} requests: {megabytes(pid):6.1f} MB, {open_files(pid)} open files; {dict(seen)}")
    print(f"counted {counted:.0f} of {routed} routed, {refused:.0f} of {seen['bad']} refused")
    print(f"still open: {still[1] if still else 'unknown'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--litellm", help="the litellm command of an environment of its own, with litellm[proxy]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--failover", action="store_true")
    args = parser.parse_args()
    upstream, ours, theirs = free_port(), free_port(), free_port()
    base = f"http://127.0.0.1:{upstream}/v1"
    words = [sys.executable, "-m", "routellm_core.cli", "serve", "--strong", "big", "--weak", "small", "--strong-url"]
    words += [base, "--weak-url", base, "--port", str(ours), *(["--failover"] if args.failover else [])]
    origin = f"http://127.0.0.1:{ours}"
    url = f"{origin}/v1/chat/completions"
    with process([sys.executable, "-c", UPSTREAM, str(upstream)], upstream), process(words, ours) as pid:
        if args.soak:
            asyncio.run(soak(url, origin, pid, args.soak))
            return
        candidates: dict[str, tuple[str, str, int | None]] = {
            "direct": (f"{base}/chat/completions", "m", None),
            "routellm": (url, "routellm", pid),
        }
        if not args.litellm:
            asyncio.run(measure(candidates, args.rounds, args.requests))
            return
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.yaml"
            config.write_text(
                "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
                f"      api_base: {base}\n      api_key: x\n"
            )
            command = [args.litellm, "--config", str(config), "--port", str(theirs), "--host", "127.0.0.1"]
            with process(command, theirs, seconds=300) as other:
                candidates["litellm"] = (f"http://127.0.0.1:{theirs}/v1/chat/completions", "m", other)
                asyncio.run(measure(candidates, args.rounds, args.requests))


if __name__ == "__main__":
    main()
