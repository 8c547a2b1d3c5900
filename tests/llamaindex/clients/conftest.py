"""The servers of these tests speak plain HTTP, so no client needs the certificates of the world: they take 50 ms each."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path_factory.getbasetemp()))
