"""The embedded host: a diffusers UNet, classifier-free guidance, both level spaces. No WebUI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.machine.transfer import sent_together
from asyndm_ext.model.attention import CrossAttentionCapture, TokenRow
from asyndm_ext.model.prompt_effect import difference
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform
from asyndm_ext.model.unet_time import UNetTimeConditioning
from asyndm_ext.rivals.choice import Log, Rival
from asyndm_ext.rivals.guidance import Row, equivalent_scale


class GuidedUNet:
    """A guided diffusers UNet that takes level maps (:class:`asyndm_ext.run.Model`).

    Args:
        unet: diffusers ``UNet2DConditionModel``.
        cond, uncond: text conditioning ``(B,L,D)``.
        guidance: CFG scale.
        table: the model's noise levels.
        prediction_type: "epsilon" or "v_prediction".
        space: "sigma": x is ``signal + sigma*noise`` and the answer is denoised; "timestep": x is in VP
            space and the answer is eps.
        columns: per image, per object, the text columns of its tokens; None captures nothing.
        halvings: how often the latent was halved where the attention is looked at.
        rival: guides in another way.
        log: takes the equivalent CFG scale of each call, where that is not ``guidance``.
        effect: tell, in place of the attention, where the prompt makes a difference, ``(B,1,H,W)``.
    """

    def __init__(
        self,
        unet: nn.Module,
        cond: Tensor,
        uncond: Tensor,
        guidance: float,
        table: NoiseTable,
        prediction_type: str,
        space: Literal["sigma", "timestep"],
        columns: Sequence[Sequence[Sequence[int]]] | None = None,
        halvings: int = 2,
        rival: Rival | None = None,
        log: Log | None = None,
        effect: bool = False,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"unsupported prediction type {prediction_type!r}")
        self._unet = unet
        self._guidance, self._log = guidance, log
        self._rule = rival.guidance(unet, guidance, len(cond), halvings) if rival is not None else None
        parts = self._rule.parts if self._rule is not None else ("uncond", "cond")
        self._context = torch.cat([uncond if part == "uncond" else cond for part in parts])
        self._table = table
        self._v = prediction_type == "v_prediction"
        self._space = space
        images = len(cond)
        self._network_rows = [Row(image, part) for part in parts for image in range(images)]
        self._rows = [row.image for row in self._network_rows]
        self._token_rows: list[TokenRow | None] = []
        self._capture: CrossAttentionCapture | None = None
        if columns is not None:
            self._capture = CrossAttentionCapture(unet, len(columns[0]), images, halvings)
            self._token_rows = [
                TokenRow(row.image, columns[row.image]) if row.part == "cond" else None for row in self._network_rows
            ]
        self._time = UNetTimeConditioning(unet)
        self._effect = effect
        self._difference: Tensor | None = None
        self.last_output: Tensor | None = None
        self.last_uncond: Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator[GuidedUNet]:
        """The hooks live inside this block only."""
        with ExitStack() as stack:
            stack.enter_context(self._time.attached())
            if self._capture is not None:
                stack.enter_context(self._capture.attached())
            if self._rule is not None:
                stack.enter_context(self._rule.attached())
            yield self

    def attention(self) -> Tensor | None:
        if self._effect:
            return self._difference
        return self._capture.maps() if self._capture is not None else None

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        sigma_space = self._space == "sigma"
        t = self._table.sigma_to_t(level) if sigma_space else level
        table = None if is_uniform(t) else TimestepTable.from_map(t, QUANTUM).to(x.device)
        told = [level if sigma_space else self._table.alpha_at(level), t.flatten()[:1]]
        precise = torch.promote_types(x.dtype, torch.float32)
        if precise == torch.float32:
            told = self._time.use(table, self._rows, [one.float() for one in told])
            told = sent_together(told, x.device)
        else:
            self._time.use(table, self._rows)
            told = [one.to(x.device, precise) for one in told]
        if sigma_space:
            sigma = told[0]
            alpha = 1 / (sigma**2 + 1)
            x_in = x * alpha.sqrt()
        else:
            alpha = told[0]
            x_in = x
        uncond, cond, *more = self._network(x_in, told[1].float(), table is not None)

        def noise(output: Tensor) -> Tensor:
            return alpha.sqrt() * output + (1 - alpha).sqrt() * x_in if self._v else output

        def answer(eps: Tensor) -> Tensor:
            return x - sigma * eps if sigma_space else eps

        self.last_uncond = answer(noise(uncond))
        if self._effect:
            # What the two take the picture for: of eps that is sigma times as far apart.
            self._difference = difference(answer(noise(cond)), self.last_uncond)
            if not sigma_space:
                self._difference = self._difference * ((1 - alpha) / alpha).sqrt()
        if self._rule is None:
            return answer(noise(uncond + self._guidance * (cond - uncond)))
        rows = [noise(output) for output in (uncond, cond, *more)]
        guided = self._rule.combine(*rows)
        if self._log is not None:
            self._log(equivalent_scale(rows[0], rows[1], guided))
        return answer(guided)

    def _network(self, x: Tensor, t: Tensor, by_pixel: bool) -> tuple[Tensor, ...]:
        """The network's answers without the prompt, with it, and any more, at the scalar timestep ``(1,)`` or the map
        that is set."""
        count = len(self._rows)
        scalar = t.expand(count)
        if self._capture is not None:
            self._capture.begin((x.shape[-2], x.shape[-1]))
            self._capture.read(self._token_rows)
        if self._rule is not None:
            self._rule.begin((x.shape[-2], x.shape[-1]))
            self._rule.read(self._network_rows)
        try:
            dtype = next(self._unet.parameters()).dtype
            output = self._unet(
                torch.cat([x] * (count // len(x))).to(dtype), scalar, encoder_hidden_states=self._context
            ).sample
            if by_pixel and self._time.calls == 0:
                raise RuntimeError("the network did not take the per-pixel timesteps")
        finally:
            self._time.use(None, ())
            if self._capture is not None:
                self._capture.read(())
            if self._rule is not None:
                self._rule.read(())
        self.last_output = output
        return output.to(torch.promote_types(x.dtype, torch.float32)).chunk(count // len(x))
