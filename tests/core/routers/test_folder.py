"""A folder of router versions, and policies that follow it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from routellm_core import Calibration, RoutingPolicy, load_router
from routellm_core.errors import CheckpointError, CheckpointNotFoundError, ConfigurationError, RouteLLMError
from routellm_core.policy import following
from routellm_core.routers import RouterFolder
from tests.support.waiting import wait_until


def saved(folder: RouterFolder, seed: int) -> str:
    """Save a random router, which differs by its seed, as a new version."""
    router = load_router("random", seed=seed)
    router.calibration = Calibration.fit(router, [f"prompt {i}" for i in range(50)])
    with folder.new_version() as place:
        router.save_pretrained(place)
        (place / "report.html").write_text("report")
    return router.fingerprint


def test_versions(tmp_path: Path) -> None:
    folder = RouterFolder(tmp_path / "my-router")
    assert folder.versions == []
    with pytest.raises(CheckpointNotFoundError, match="names the one in use"):
        folder.load()
    first, second, third = (saved(folder, seed) for seed in (1, 2, 3))
    names = folder.versions
    assert names == [f"0001-{first[:8]}", f"0002-{second[:8]}", f"0003-{third[:8]}"]
    assert folder.current == names[2]
    assert load_router(tmp_path / "my-router").fingerprint == third
    assert load_router("random", tmp_path / "my-router").fingerprint == third
    assert (folder.version_path() / "report.html").is_file()
    assert folder.back() == names[1]
    assert folder.back() == names[0]
    with pytest.raises(ConfigurationError, match="is the first version"):
        folder.back()
    folder.use(names[2])
    assert folder.load().fingerprint == third
    assert folder.back() == names[0]  # the one that was in use before
    with pytest.raises(ConfigurationError, match="version='0009'"):
        folder.use("0009")


def test_what_does_not_become_whole_is_no_version(tmp_path: Path) -> None:
    folder = RouterFolder(tmp_path)
    saved(folder, 1)
    before = folder.current
    with pytest.raises(ZeroDivisionError), folder.new_version() as place:
        load_router("random", seed=1 // len([])).save_pretrained(place)
    with pytest.raises(CheckpointError), folder.new_version() as place:
        (place / "config.json").write_text("{}")  # no router
    assert folder.versions == [before]
    assert folder.current == before
    assert len(list((tmp_path / "versions").iterdir())) == 1


@pytest.mark.parametrize("name", ["../other", "/etc", 7, None, "0001/..", "0001-../x"])
def test_a_name_leads_to_no_other_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "current.json").write_text(json.dumps({"version": name}))
    with pytest.raises(CheckpointError, match="expected the names of versions"):
        load_router(tmp_path)


def test_a_policy_follows_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK_EVERY", 0.0)
    folder = RouterFolder(tmp_path)
    first = saved(folder, 1)
    policy = RoutingPolicy(folder, strong_fraction=0.3)
    assert policy.decide("a").router_version == first[:12]
    old = policy.threshold

    def decides_by(fingerprint: str) -> None:
        wait_until(lambda: policy.decide("a").router_version == fingerprint[:12])

    second = saved(folder, 2)
    decides_by(second)
    assert policy.threshold == folder.load().calibration.threshold(strong_fraction=0.3) != old  # type: ignore[union-attr]
    folder.back()
    decides_by(first)
    assert policy.threshold == old


def test_a_version_that_cannot_be_loaded_leaves_the_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "_LOOK_EVERY", 0.0)
    folder = RouterFolder(tmp_path)
    first = saved(folder, 1)
    policy = RoutingPolicy(folder, strong_fraction=0.3)
    saved(folder, 2)
    (folder.version_path() / "config.json").write_text("{")

    def is_said() -> bool:
        assert policy.decide("a").router_version == first[:12]
        return bool(caplog.records)

    wait_until(is_said)
    for _ in range(20):
        assert policy.decide("a").router_version == first[:12]
        time.sleep(0.01)
    assert len(caplog.records) == 1  # said once
    assert "the router in use goes on" in caplog.text


def test_a_folder_without_a_version_is_no_router(tmp_path: Path) -> None:
    with pytest.raises(RouteLLMError):
        RoutingPolicy(RouterFolder(tmp_path), threshold=0.5)
    with pytest.raises(ConfigurationError, match="path=''"):
        RouterFolder("")
