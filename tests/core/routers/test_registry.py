"""Routers by name: those of installed packages, ``package.module:Class``, and one object for each caller."""

import importlib
import json
import logging
import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from routellm_core import (
    Calibration,
    CheckpointError,
    CheckpointNotFoundError,
    ConfigurationError,
    MissingExtraError,
    Router,
    RoutingPolicy,
    load_router,
)
from routellm_core.checks import imported_object
from routellm_core.routers import as_router, router_class, router_names

ACME = """
from routellm_core import Router

class AcmeRouter(Router):
    name = "acme"
    def __init__(self, factor=1.0):
        self.factor = factor
        self.version = factor
    def _win_rates(self, prompts):
        return [min(1.0, self.factor * len(p) / 100) for p in prompts]
    def _save(self, path):
        (path / "factor.txt").write_text(str(self.factor))
        return {}
    @classmethod
    def _load(cls, path, config, *, factor=None):
        return cls(float((path / "factor.txt").read_text()) if factor is None else factor)

class NeedsAKey(Router):
    def __init__(self, key):
        self.key = key
    def _win_rates(self, prompts):
        return [0.5 for _ in prompts]

class Outer:
    class Inner(AcmeRouter):
        name = "inner"

class Plain:
    def win_rates(self, prompts):
        return [0.5 for _ in prompts]

ready = AcmeRouter(2.0)

def score(prompts):
    return [0.25 for _ in prompts]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution as pip leaves it: a module, and a dist-info with METADATA and entry_points.txt."""
    modules = set(sys.modules)

    def installed(distribution, entry_points, folder="site", **sources):
        site = tmp_path / folder
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for name, source in sources.items():
            (site / f"{name}.py").write_text(source)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()

    yield installed
    for name in set(sys.modules) - modules:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def acme(install):
    install("acme-routers", "[routellm.routers]\nacme = acme_routers:AcmeRouter\n", acme_routers=ACME)


def test_an_installed_package_adds_its_routers(acme, tmp_path):
    assert router_names()[-1] == "acme"
    assert router_class("acme").__name__ == "AcmeRouter"
    router: Any = load_router("acme")
    assert router.name == "acme"
    assert router.win_rates(["hi"]).tolist() == [0.02]
    assert load_router("acme", factor=3.0).factor == 3.0  # type: ignore[attr-defined]
    assert as_router("acme").name == RoutingPolicy("acme", threshold=0.5).router.name == "acme"
    with pytest.raises(ConfigurationError, match=r"'nope'.*corrected, acme, a class as package\.module:Class, or"):
        load_router("nope")
    with pytest.raises(ConfigurationError, match=r"'acme' cannot be constructed with speed: .*'speed'"):
        load_router("acme", speed=3)


def test_a_saved_router_of_an_installed_package_is_found_by_its_config(acme, tmp_path):
    router: Any = load_router("acme", factor=2.0)
    router.calibration = Calibration.fit(router, ["a", "bb"])
    router.save_pretrained(tmp_path / "saved")
    for again in (
        Router.from_pretrained(tmp_path / "saved"),
        load_router(tmp_path / "saved"),
        load_router(str(tmp_path / "saved")),
        load_router("acme", tmp_path / "saved"),
        type(router).from_pretrained(tmp_path / "saved"),
    ):
        assert type(again) is type(router)
        assert again.win_rates(["hi"]).tolist() == [0.04]
        assert again.calibration == router.calibration
    changed: Any = load_router(tmp_path / "saved", factor=4.0)
    assert (changed.factor, changed.calibration) == (4.0, None)
    with pytest.raises(ConfigurationError, match="AcmeRouter has no option speed; it takes factor"):
        load_router(tmp_path / "saved", speed=3)


def test_a_saved_router_of_a_package_that_is_missing_says_what_to_do(install, tmp_path):
    install("acme-other", "", acme_routers=ACME)
    load_router("acme_routers:AcmeRouter").save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"'acme' router.*install.*load_router\('package\.module:Class'"):
        load_router(tmp_path / "saved")
    assert load_router("acme_routers:AcmeRouter", tmp_path / "saved").win_rates(["hi"]).tolist() == [0.02]


def test_a_config_names_no_module_to_import(install, tmp_path):
    install("acme-evil", "", acme_evil="raise SystemExit('imported')")
    (tmp_path / "config.json").write_text(json.dumps({"router": "acme_evil:Router"}))
    with pytest.raises(CheckpointError, match="'acme_evil:Router' router"):
        load_router(tmp_path)
    assert "acme_evil" not in sys.modules


def test_a_package_takes_none_of_our_names(install, caplog):
    install(
        "acme-thief",
        "[routellm.routers]\nmf = acme_thief:Router\nrandom = acme_thief:Router\nacme = acme_thief:Router\n",
        acme_thief="raise AssertionError('imported')",
    )
    assert load_router().name == load_router("mf").name == load_router("mf_vote").name == "mf_vote"
    assert load_router("random").name == "random"
    assert router_class("mf").__module__ == "routellm_core.routers.mf"
    with caplog.at_level(logging.WARNING):
        assert router_names().count("mf") == 1
    assert "router 'mf' (acme_thief:Router of acme-thief) is ignored: the name is built in" in caplog.text


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        ("acme_broken:Mine", "import a_module_that_does_not_exist", "ModuleNotFoundError: .*a_module_that_does_not"),
        ("acme_broken:Mine", "1 / 0", "ZeroDivisionError"),
        ("acme_broken:Mine", "class Mine(:", "SyntaxError"),
        ("acme_broken:Mine", "", "AttributeError"),
        ("acme_absent:Mine", "", "ModuleNotFoundError"),
        ("not a reference", "", "cannot be loaded"),
        ("acme_broken:Mine", "class Mine: pass", "is the class Mine, not a subclass of Router"),
        ("acme_broken:Mine", "def Mine(prompts): pass", r"is a function, not a subclass of Router.*as_router"),
        ("acme_broken", "", "is a module, not a subclass of Router"),
    ],
)
def test_a_broken_package_fails_alone(install, acme, target, source, said):
    install("acme-broken", f"[routellm.routers]\nbroken = {target}\n", acme_broken=source)
    with pytest.raises(ConfigurationError, match=rf"(?s)router 'broken'.*{said}"):
        load_router("broken")
    assert load_router("acme").name == "acme"
    assert load_router().name == "mf_vote"
    assert router_names()[-2:] == ("acme", "broken")


@pytest.mark.parametrize("text", ["[routellm.routers]\nno equals sign\n", "\x00\x01", "[routellm.routers\nx = y:z"])
def test_unreadable_entry_points_of_a_package_leave_the_others_usable(install, acme, text, caplog):
    install("acme-unreadable", text)
    with caplog.at_level(logging.WARNING):
        assert load_router("acme").name == "acme"
    with pytest.raises(ConfigurationError, match="acme, a class"):
        load_router("nope")


def test_a_name_that_two_packages_claim_is_ambiguous(install, acme):
    install("acme-rival", "[routellm.routers]\nacme = acme_rival:Rival\n", acme_rival=ACME + "\nRival = AcmeRouter\n")
    with pytest.raises(ConfigurationError, match=r"several installed packages \(.*acme-r.* of .*\): name the class"):
        load_router("acme")
    assert load_router("acme_rival:Rival").name == "acme"


def test_of_a_package_that_is_on_the_path_twice_the_first_counts(install):
    install("acme_routers", "[routellm.routers]\nacme = acme_older:Router\n", folder="second")
    install("acme-routers", "[routellm.routers]\nacme = acme_routers:AcmeRouter\n", acme_routers=ACME)
    assert load_router("acme").name == "acme"


def test_a_package_may_register_a_router_that_is_ready(install):
    install("acme-ready", "[routellm.routers]\nacme-ready = acme_routers:ready\n", acme_routers=ACME)
    assert load_router("acme-ready").win_rates(["hi"]).tolist() == [0.04]
    with pytest.raises(ConfigurationError, match=r"router object: it takes no options \(factor\)"):
        load_router("acme-ready", factor=1.0)
    with pytest.raises(ConfigurationError, match="router object, not a class"):
        load_router("acme-ready", ".")


def test_a_class_by_its_import_path(install, tmp_path):
    install("acme-other", "", acme_routers=ACME)
    assert load_router("acme_routers:AcmeRouter").win_rates(["hi"]).tolist() == [0.02]
    assert load_router("acme_routers:AcmeRouter", factor=5).factor == 5  # type: ignore[attr-defined]
    assert load_router("acme_routers:Outer.Inner").name == "inner"
    assert load_router("acme_routers:ready").factor == 2.0  # type: ignore[attr-defined]
    assert load_router("acme_routers:NeedsAKey", key="k").key == "k"  # type: ignore[attr-defined]
    assert load_router("tests.core.routers.test_own:Short").win_rates(["hi"]).tolist() == [0.02]
    with pytest.raises(ConfigurationError, match=r"NeedsAKey' cannot be constructed with no options: .*'key'"):
        load_router("acme_routers:NeedsAKey")
    with pytest.raises(ConfigurationError, match="Short' cannot be constructed with factor"):
        load_router("tests.core.routers.test_own:Short", factor=2)
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        load_router("acme_routers:AcmeRouter", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme_absent:Mine", "module acme_absent cannot be imported: ModuleNotFoundError"),
        ("acme_routers.absent:Mine", r"module acme_routers\.absent cannot be imported: ModuleNotFoundError"),
        ("acme_broken:Mine", "module acme_broken cannot be imported: ZeroDivisionError"),
        ("acme_routers:Absent", "module acme_routers has no attribute 'Absent'"),
        ("acme_routers:Outer.Absent", r"module acme_routers has no attribute 'Outer\.Absent'"),
        ("acme_routers:Plain", "is the class Plain, not a subclass of Router"),
        ("acme_routers:score", r"is a function, not a subclass of Router or a Router object; .*router = as_router"),
        ("acme_routers:__name__", "is a str, not a subclass"),
        ("json:loads", "is a function, not a subclass"),
    ],
)
def test_an_import_path_that_leads_to_no_router_says_why(install, name, said):
    install("acme-other", "", acme_routers=ACME, acme_broken="1 / 0")
    for use in (load_router, as_router, router_class):
        with pytest.raises(ConfigurationError, match=said):
            use(name)


@pytest.mark.parametrize(
    "name", [":Mine", "acme:", "a b:Mine", "acme-x:Mine", "a:b:c", "C:\\routers", "x" * 5000, "\x00"]
)
def test_what_is_neither_a_name_nor_a_path_is_unknown(name):
    with pytest.raises(ConfigurationError, match="no router and no directory with this name"):
        load_router(name)


def test_a_missing_extra_of_a_module_stays_one(install):
    install(
        "acme-other", "", acme_extra="from routellm_core import MissingExtraError\nraise MissingExtraError('It', 'x')"
    )
    with pytest.raises(MissingExtraError):
        load_router("acme_extra:Mine")


def test_a_module_in_the_working_directory_is_found_last(tmp_path, monkeypatch):
    (tmp_path / "acme_here.py").write_text("from json import loads as found\n")
    (tmp_path / "json.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    try:
        assert imported_object("acme_here:found", "router") is json.loads
        assert sys.path[-1] == str(tmp_path)
    finally:
        sys.modules.pop("acme_here", None)
    with pytest.raises(ConfigurationError, match="acme_gone cannot be imported: ModuleNotFoundError"):
        imported_object("acme_gone:found", "router")


def test_the_command_takes_a_class_of_the_working_directory(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "acme_mine.py").write_text(
        "from routellm_core import Router\n"
        "class Mine(Router):\n"
        "    def _win_rates(self, prompts):\n"
        "        return [len(p) / 100 for p in prompts]\n"
    )
    # as the installed script does: the directory of the script is on the path, the working directory is not
    script = tmp_path / "routellm"
    script.write_text("from routellm_core.cli import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, script, "route", "hello there", "--router", "acme_mine:Mine", "--threshold", "0.1", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    decision = json.loads(done.stdout)
    assert (decision["router"], decision["win_rate"], decision["model"]) == ("Mine", 0.11, "strong")


def test_nobody_can_spoil_the_bundled_router_of_others():
    before = load_router()
    fingerprint, rates = before.fingerprint, before.win_rates(["hi", "Prove it."]).tolist()
    spoilt: Any = load_router()
    spoilt.calibration.fingerprint = "another"
    spoilt.calibration = None
    spoilt.strong = "nobody"
    spoilt.embedder = None
    spoilt.name = "mine"
    spoilt.note = "a note"
    for router in (before, load_router(), load_router("mf"), RoutingPolicy(strong_fraction=0.3).router):
        assert (router.name, router.strong, router.fingerprint) == ("mf_vote", "gpt-4-1106-preview", fingerprint)  # type: ignore[attr-defined]
        assert router.calibration.fingerprint == fingerprint  # type: ignore[union-attr]
        assert router.win_rates(["hi", "Prove it."]).tolist() == rates
        assert not hasattr(router, "note")
    with pytest.raises(AttributeError):
        load_router().embedder.fingerprint = "another"  # type: ignore[attr-defined]


def test_its_arrays_are_shared_and_cannot_be_written_to():
    first, second = load_router(), load_router()
    assert first is not second
    assert np.shares_memory(first.embeddings, second.embeddings)  # type: ignore[attr-defined]
    assert first.embedder is second.embedder  # type: ignore[attr-defined]
    assert np.shares_memory(first.calibration.values, second.calibration.values)  # type: ignore[union-attr]
    arrays = {
        **{name: value for name, value in vars(first).items() if isinstance(value, np.ndarray)},
        **{name: value for name, value in vars(first.head).items() if isinstance(value, np.ndarray)},  # type: ignore[attr-defined]
        **{name: value for name, value in vars(first.embedder).items() if isinstance(value, np.ndarray)},  # type: ignore[attr-defined]
        "values": first.calibration.values,  # type: ignore[union-attr]
        "counts": first.calibration.counts,  # type: ignore[union-attr]
        "tail": first.calibration._tail,  # type: ignore[union-attr]
    }
    assert {"model_vectors", "output", "_vector", "_table"} <= set(arrays)
    assert [name for name, array in arrays.items() if array.flags.writeable] == []
    with pytest.raises(ValueError, match="read-only"):
        first.embeddings[0] = 0  # type: ignore[attr-defined]
    first.head.vector[:] = 0  # type: ignore[attr-defined]  # a copy
    assert second.head.vector.any()  # type: ignore[attr-defined]
