"""Loading by hub id: the real huggingface_hub client against a loopback hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from routellm_core import CheckpointNotFoundError, load_router
from routellm_core.embedders import bundled_embedder

pytest.importorskip("huggingface_hub")
SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(files: dict[str, bytes]):
    """A hub with one repository, owner/router; yields its address and the list of paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/api/models/owner/router/tree/"):
                entries = [{"type": "file", "path": n, "size": len(b), "oid": SHA} for n, b in files.items()]
                self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
            elif self.path.startswith("/api/models/owner/router"):
                info = {"id": "owner/router", "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
                self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            elif self.path.startswith("/owner/router/resolve/"):
                body = files[self.path.split("/", 5)[5].split("?")[0]]
                self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=SHA)
            else:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def load_in_subprocess(endpoint: str, cache, source: str) -> subprocess.CompletedProcess[str]:
    # the client reads its endpoint from the environment once, at import
    code = (
        "from routellm_core import load_router\n"
        "from routellm_core.embedders import bundled_embedder\n"
        f"r = load_router('mf', {source!r})\n"
        "print(r.win_rates(['hi', 'Prove it.']).tolist())"
    )
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_HUB_OFFLINE"):
        env.pop(name, None)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def saved(tmp_path) -> dict[str, bytes]:
    directory = tmp_path / "saved"
    load_router().head.save_pretrained(directory)  # type: ignore[attr-defined]
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def test_a_hub_id_loads_like_its_directory(tmp_path):
    files = saved(tmp_path)
    with hub({**files, "pytorch_model.bin": b"\x80\x04 a pickle"}) as (endpoint, asked):
        result = load_in_subprocess(endpoint, tmp_path / "cache", "owner/router")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == load_router().head.win_rates(["hi", "Prove it."]).tolist()  # type: ignore[attr-defined]
    assert any("model.safetensors" in path for path in asked)
    assert not any("resolve" in path and "pytorch_model.bin" in path for path in asked), "a pickle was fetched"


def test_a_repository_with_pickles_only_is_refused(tmp_path):
    files = {n: b for n, b in saved(tmp_path).items() if n != "model.safetensors"}
    with hub({**files, "pytorch_model.bin": b"\x80\x04 a pickle"}) as (endpoint, _):
        result = load_in_subprocess(endpoint, tmp_path / "cache", "owner/router")
    assert "no safetensors weights. Pickled weights can run code" in result.stderr


def test_an_unknown_repository_is_one_clear_error(tmp_path):
    with hub({}) as (endpoint, _):
        result = load_in_subprocess(endpoint, tmp_path / "cache", "owner/nothing")
    assert "CheckpointNotFoundError: source='owner/nothing'" in result.stderr


def test_a_path_is_never_taken_for_a_hub_id():
    for source in ("./owner/name", "/nowhere/name", "a/b/c", "../nowhere", "name"):
        with pytest.raises(CheckpointNotFoundError, match="no such directory, and not a hub id"):
            load_router("mf", source, embedder=bundled_embedder())
