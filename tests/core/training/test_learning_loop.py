"""Small versions of benchmarks/learning_loop.py on the shared data."""

from __future__ import annotations

import learning_loop as loop
import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (loop.DATA / "benchmarks").is_dir(), reason="needs the shared data, see CONTRIBUTING.md"),
]


@pytest.fixture(scope="module", params=list(loop.PAIRS))
def traffic(request: pytest.FixtureRequest) -> tuple[str, loop.Traffic]:
    return request.param, loop.load(request.param)


def test_a_correction_gains_from_a_hundred_pairs_on(traffic: tuple[str, loop.Traffic]) -> None:
    which, t = traffic
    for pairs, least in zip((100, 800), (1.9, 2.3) if which == "MMLU" else (0.7, 1.2), strict=True):
        gains = [loop.correction(pairs, draw, t)[0] for draw in range(20)]
        assert np.mean(gains) >= least


def test_a_random_router_is_found_out(traffic: tuple[str, loop.Traffic]) -> None:
    assert np.mean([any(loop.verdicts("random", traffic[1], run)) for run in range(400)]) <= 0.07


def test_intervals_of_a_replay_cover() -> None:
    truth = loop.ReplayTruth()
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        found, true = truth.replays("fixed", 0.0, 0.05, 2000, rng)["always strong"]
        assert found.difference is not None
        hits.append(found.difference.low <= true <= found.difference.high)
    assert np.mean(hits) >= 0.88
