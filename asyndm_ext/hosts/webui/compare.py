"""Another method at work in a pass of a WebUI, for the evaluation (:mod:`asyndm_ext.rivals`).

The host guides as always. What the method adds to plain guidance is added to the host's own answer, so that masks,
other extensions and the order of the rows stay the host's. A method that wants a third row per image calls the network
a second time with the host's own batch: twice the calls, where its own program would make half as many more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.hosts.webui.errors import AsynDMError, NotApplied
from asyndm_ext.rivals import cfgpp
from asyndm_ext.rivals.choice import Rival
from asyndm_ext.rivals.guidance import Guidance, Part, Row, Unreadable, equivalent_scale
from asyndm_ext.solvers import Solver


class Compared:
    """See above; of one pass.

    Args:
        rival: the method.
        guidance: the host's CFG scale.
        images: batch size.

    Attributes:
        scales: the equivalent guidance scale of each step so far, ``(B,)`` on the device.
    """

    def __init__(self, rival: Rival, guidance: float, images: int) -> None:
        self._rival, self._guidance, self._images = rival, guidance, images
        self.scales: list[Tensor] = []
        self._rule: Guidance | None = None
        self._seen: set[int] = set()
        self._worse: dict[int, Tensor] = {}
        self._calls, self._first_step = 0, 0

    # -- the sampler

    def solver(self, label: str, solver: Solver) -> Solver:
        """The pass's solver as the method needs it. Raises AsynDMError: it cannot be had with this sampler."""
        name = self._rival.name
        if name == "cfg++":
            instead = cfgpp.SIBLINGS.get(label, "one with CFG++ in its name")
            raise AsynDMError(f"AsynDM: compare: CFG++ is a sampler of its own in the WebUI; choose {instead}")
        if name != "zigzag":
            return solver
        try:
            self._rival.solver(label)
        except ValueError as error:
            raise AsynDMError(f"AsynDM: compare: {error}") from error
        return replace(solver, uncond=True)

    def sample(self, solver: Solver) -> Callable[..., Tensor]:
        """``(run, x, **options) -> x``."""
        return self._rival.sample(solver, self._guidance, self.scales.append)

    # -- the guided call

    @contextmanager
    def attached(self, network: nn.Module) -> Iterator[None]:
        """Hooks on the network live inside this block only. Raises NotApplied: the network is none for the method."""
        try:
            self._rule = self._rival.guidance(network, self._guidance, self._images)
        except ValueError as error:
            raise NotApplied(f"compare: {error}") from error
        if self._rule is None:
            yield
            return
        with self._rule.attached():
            yield

    def begins(self, denoiser: Any) -> None:
        """A guided call begins. Z-Sampling makes several in a step, and the host, which counts them, is told so:
        its prompts and its refiner go by steps."""
        if self._rival.name != "zigzag":
            return
        if not self._calls:
            self._first_step = denoiser.step
        denoiser.step = self._first_step + self._calls // (1 + 2 * int(self._rival["zigzag_rounds"]))
        self._calls += 1

    def begin(self, latent_size: tuple[int, int]) -> None:
        """The next network calls are on latents of this ``(H, W)``."""
        self._seen.clear()
        self._worse.clear()
        if self._rule is not None:
            self._rule.begin(latent_size)

    # -- a call of the network

    def answer(self, call: Callable[[bool], Tensor], images: Sequence[int], parts: Sequence[Part]) -> Tensor:
        """The host's rows. ``call``: of the network; whether it is the one whose attention AsynDM reads.

        Args:
            images, parts: what each row belongs to, and whether the prompt is in it.
        """
        rule = self._rule
        if rule is None:
            return call(True)
        rows = [Row(image, part) for image, part in zip(images, parts, strict=True)]
        self._seen.update(row.image for row in rows if row.part == "uncond")
        answer = self._reading(rows, lambda: call(True))
        if "perturbed" in rule.parts and "cond" in parts:
            turned = [Row(row.image, "perturbed") if row.part == "cond" else None for row in rows]
            worse = self._reading(turned, lambda: call(False))
            self._worse.update((row.image, worse[i]) for i, row in enumerate(rows) if row.part == "cond")
        return answer

    def _reading(self, rows: Sequence[Row | None], call: Callable[[], Tensor]) -> Tensor:
        assert self._rule is not None
        self._rule.read(rows)
        try:
            return call()
        finally:
            self._rule.read(())

    # -- guidance

    def led(self, guided: Tensor, cond: Tensor, uncond: Tensor, sigma: Tensor | None) -> Tensor:
        """The host's guided answer, and what the method adds to it.

        Args:
            guided, cond, uncond: ``(B,C,H,W)``, noise, or denoised at ``sigma``.
            sigma: ``(B,1,H,W)`` beside them; None: the answers are noise.
        """
        rule = self._rule
        if rule is None or not self._seen:  # the host has left the negative prompt out: there is nothing to guide
            return guided
        precise = torch.promote_types(guided.dtype, torch.float32)
        unit = -sigma if sigma is not None else torch.ones((), device=guided.device)
        base = uncond.to(precise)
        prompt, perturbed = (cond.to(precise) - base) / unit, None
        nothing = torch.zeros_like(prompt)
        if self._worse:
            perturbed = (torch.stack([self._worse[i] for i in range(self._images)]).to(precise) - base) / unit
        try:
            # The methods ask for nothing but differences of answers, so the one without the prompt may be 0.
            own = rule.combine(nothing, prompt, perturbed)
        except Unreadable as error:
            raise NotApplied(f"compare: {error}") from error
        self.scales.append(equivalent_scale(nothing, prompt, own))
        return (guided.to(precise) + (own - self._guidance * prompt) * unit).to(guided.dtype)


def refuse_several_prompts() -> None:
    """A prompt with AND is left alone: raises NotApplied."""
    raise NotApplied("compare: a prompt with AND is guided in several directions, and the method knows one")
