"""Online calibration over many server processes, each with its own window or with merged windows: a simulation.

python benchmarks/shared_online.py [--processes 16] [--calls 400000] [--share 0.3] [--every 5000] [--json]

Traffic grows harder over the run and jumps in the middle; one process gets twice as many calls as another. Either a
load balancer sends each call anywhere, or each process has users of its own, whose prompts are easier or harder than
those of others. Three ways to hold the share of strong calls:

fixed    one threshold, calibrated before the run
own      an `OnlineCalibration` in each process, which sees the calls of this process alone
merged   every `--every` calls, each process hands over the win rates of its calls since the last time, condensed to 512
         values, and how many went to the strong model; `Calibration.merge` makes one of them, and all processes take
         its threshold, for a share that pays back what has been sent too much or too little

Printed are the share of strong calls in all and in the process that is furthest off, the worst share of 10,000 calls in
a row, and the share of the best possible gain: the mean win rate of the calls that went to the strong model, between
that of calls taken at random (0 %) and that of the highest win rates of each 10,000 calls (100 %).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "core"))

import numpy as np

from routellm_core import Calibration, OnlineCalibration

WINDOW = 1000
STRETCH = 10_000
CONDENSED = 512
PAID_BACK_OVER = 4  # slices


def traffic(calls: int, processes: int, *, users_stay: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The process (n,) and the win rate (n,) of each call."""
    rng = np.random.default_rng(seed)
    load = np.linspace(1.0, 2.0, processes)
    process = rng.choice(processes, size=calls, p=load / load.sum())
    hardness = np.linspace(2.0, 3.0, calls) + 1.5 * (np.arange(calls) >= calls // 2)
    if users_stay:
        hardness = hardness * np.linspace(0.5, 1.5, processes)[process]
    return process, rng.beta(hardness, 6.0)


def own_windows(process: np.ndarray, win_rates: np.ndarray, before: Calibration, share: float) -> np.ndarray:
    """Whether each call (n,) is strong, where each process follows its own calls."""
    online = [OnlineCalibration(before, share, window=WINDOW) for _ in range(int(process.max()) + 1)]
    calls = zip(process.tolist(), win_rates.tolist(), strict=True)
    return np.array([win_rate >= online[at].observe(win_rate) for at, win_rate in calls])


def merged_windows(
    process: np.ndarray, win_rates: np.ndarray, before: Calibration, share: float, every: int
) -> np.ndarray:
    """Whether each call (n,) is strong, where all processes share what they have seen at the end of each slice."""
    threshold, owed, strong = before.threshold(strong_fraction=share), 0.0, []
    for start in range(0, len(win_rates), every):
        seen, at = win_rates[start : start + every], process[start : start + every]
        strong.append(seen >= threshold)
        owed += share * len(seen) - float(strong[-1].sum())
        parts = [Calibration.from_win_rates(seen[at == k]).condensed(CONDENSED) for k in np.unique(at)]
        aim = share + owed / (PAID_BACK_OVER * every)
        threshold = Calibration.merge(parts).threshold(strong_fraction=min(1.0, max(0.0, aim)))
    return np.concatenate(strong)


def figures(strong: np.ndarray, process: np.ndarray, win_rates: np.ndarray, share: float) -> dict[str, float]:
    by_process = [float(strong[process == k].mean()) for k in range(int(process.max()) + 1)]
    sums = np.concatenate([[0], np.cumsum(strong)])
    stretches = (sums[STRETCH:] - sums[:-STRETCH]) / STRETCH
    parts = np.split(win_rates, range(STRETCH, len(win_rates), STRETCH))
    best = np.concatenate([part >= np.quantile(part, 1.0 - share) for part in parts])
    at_random = win_rates.mean()
    return {
        "share": float(strong.mean()),
        "furthest_process": max(by_process, key=lambda found: abs(found - share)),
        "worst_stretch": float(stretches[np.abs(stretches - share).argmax()]),
        "gain": float((win_rates[strong].mean() - at_random) / (win_rates[best].mean() - at_random)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--calls", type=int, default=400_000)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--every", type=int, default=5_000, help="calls of all processes between two merges")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    before = Calibration.from_win_rates(np.random.default_rng(1).beta(2.0, 6.0, size=10_000))
    rows = []
    for users_stay in (False, True):
        process, win_rates = traffic(options.calls, options.processes, users_stay=users_stay)
        for way, strong in (
            ("fixed", win_rates >= before.threshold(strong_fraction=options.share)),
            ("own", own_windows(process, win_rates, before, options.share)),
            ("merged", merged_windows(process, win_rates, before, options.share, options.every)),
        ):
            users = "each stays at one process" if users_stay else "anywhere"
            rows.append({"calls": users, "way": way, **figures(strong, process, win_rates, options.share)})
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'calls':26s} way      share   furthest process   worst 10,000   gain")
        for row in rows:
            print(
                f"{row['calls']:26s} {row['way']:7s} {row['share']:6.1%} {row['furthest_process']:18.1%} "
                f"{row['worst_stretch']:14.1%} {row['gain']:6.1%}"
            )
    online = [row for row in rows if row["way"] != "fixed"]
    return int(any(abs(row["share"] - options.share) > 0.01 for row in online))


if __name__ == "__main__":
    sys.exit(main())
