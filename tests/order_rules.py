"""Objects in turn: which rule makes clocks of an order? The candidates in the exact world.

    python -m tests.order_rules                    # the development of docs/EVALUATE.md, which chose the rule
    python -m tests.order_rules --confirm RULE     # the confirmation, on other pairs

Prints a table: how many points more of the pictures are right than on the ordinary clock, and than with all objects
together, from the same noise. The product has the rule that was chosen (:mod:`asyndm_ext.region.turns`); the others
live here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from asyndm_ext.evaluate.statistics import Bootstrap
from asyndm_ext.exact.config import ExactConfig, combinations
from asyndm_ext.exact.sampling import Conditions, sample
from asyndm_ext.exact.world import ExactWorld
from asyndm_ext.settings import Settings

THREE = ExactConfig(parts=3, tie=0.7, heed=3.0)
CHOOSE, CONFIRM = (20, 5_000_000), (50, 6_000_000)
"""How many pictures of each of the 160 unusual prompts, and the seed of the first."""
ORDERS = ("in turn", "last first")
CURVES = ("quadratic", "piecewise linear")

Rule = Callable[[int, int], tuple[float, float]]
RULES: dict[str, Rule] = {
    "together": lambda k, n: (1.0, 1.0),
    "shares from 0": lambda k, n: ((k - 1) / (n - 1), 1.0),
    "equal shares": lambda k, n: (k / n, 1.0),
    "windows": lambda k, n: (1.0, k / (n + 1)),
    "windows, the last one stays": lambda k, n: (1.0, k / n),
}
"""Of the k-th of n objects: the share of the strength that it has, and until which part of the steps."""


class Turned:
    """The region of a rule: part k + 1 of the picture is the object whose turn is ``turns[k]``, from 1 on."""

    def __init__(self, rule: Rule, turns: Sequence[int], strength: float, shape: tuple[int, int, int, int]) -> None:
        self._own = [rule(turn, len(turns)) for turn in turns]
        self._strength, self._shape = strength, shape

    def observe(self, maps: Tensor | None, progress: float) -> None:
        pass

    def strength(self, progress: float) -> Tensor:
        now = [self._strength * share * (progress < until - 1e-9) for share, until in self._own]
        return torch.tensor([0.0, *now], dtype=torch.float64).expand(self._shape)


def right(rule: str, order: str, curve: str, guidance: float, pairs: tuple[int, int]) -> np.ndarray:
    """Which pictures are, 0 or 1."""
    world, (rounds, first) = ExactWorld(THREE), pairs
    asked = combinations(THREE.parts, False) * rounds
    conditions = Conditions("DDIM", steps=30, guidance=guidance, eta=1.0)
    settings = None if rule == "plain" else Settings(enabled=True, strength=1.0, curve=curve)
    turns = (1, 2) if order == "in turn" else (2, 1)
    found = []
    for start in range(0, len(asked), 640):
        part = asked[start : start + 640]
        shape = (len(part), 1, 1, THREE.parts)
        region = None if settings is None else Turned(RULES[rule], turns, 1.0, shape)
        seeds = range(first + start, first + start + len(part))
        found.append(world.found(sample(world, part, seeds, conditions, settings, region=region)))
    kinds = torch.tensor([one.kinds for one in asked])
    return (torch.cat(found) == kinds).all(dim=1).double().numpy()


def table(rules: Iterable[str], guidances: Iterable[float], pairs: tuple[int, int]) -> None:
    for guidance in guidances:
        plain = right("plain", "", "quadratic", guidance, pairs)
        bootstrap = Bootstrap(len(plain))
        print(f"guidance {guidance:g}, {len(plain)} pairs, plain {100 * plain.mean():.1f} %")
        gains: dict[str, list[float]] = {}
        for curve in CURVES:
            together = right("together", "in turn", curve, guidance, pairs)
            _row(bootstrap, f"{curve:<17} together", together - plain)
            for rule in rules:
                for order in ORDERS:
                    own = right(rule, order, curve, guidance, pairs)
                    gains.setdefault(rule, []).append(float((own - plain).mean()))
                    _row(bootstrap, f"{curve:<17} {rule}, {order}", own - plain, own - together)
        for rule, own in gains.items():
            print(f"  mean of {rule}: {100 * float(np.mean(own)):+.2f}")


def _row(bootstrap: Bootstrap, name: str, *differences: np.ndarray) -> None:
    written = []
    for difference in differences:
        low, high = bootstrap.interval(difference)
        written.append(f"{100 * difference.mean():+5.1f} ({100 * low:+5.1f} to {100 * high:+5.1f})")
    print(f"  {name:<58} {'   '.join(written)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", choices=[rule for rule in RULES if rule != "together"], metavar="RULE")
    chosen = parser.parse_args().confirm
    with torch.inference_mode():
        if chosen:
            table([chosen], (5.0, 7.5), CONFIRM)
        else:
            table([rule for rule in RULES if rule != "together"], (5.0,), CHOOSE)


if __name__ == "__main__":
    main()
