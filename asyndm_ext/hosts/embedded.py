"""The embedded host: a diffusers UNet, classifier-free guidance, both level spaces. No WebUI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from asyndm_ext.model.attention import CrossAttentionCapture, TokenRow
from asyndm_ext.model.prompt_effect import difference
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform
from asyndm_ext.model.unet_time import UNetTimeConditioning
from asyndm_ext.noise import NoiseTable
from asyndm_ext.transfer import sent_together


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
        effect: bool = False,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"unsupported prediction type {prediction_type!r}")
        self._unet = unet
        self._context = torch.cat([uncond, cond])
        self._guidance = guidance
        self._table = table
        self._v = prediction_type == "v_prediction"
        self._space = space
        images = len(cond)
        self._rows = [*range(images), *range(images)]
        self._token_rows: list[TokenRow | None] = []
        self._capture: CrossAttentionCapture | None = None
        if columns is not None:
            self._capture = CrossAttentionCapture(unet, len(columns[0]), images, halvings)
            self._token_rows = [None] * images + [TokenRow(b, c) for b, c in enumerate(columns)]
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
        uncond, cond = self._network(x_in, told[1].float(), table is not None)

        def answer(output: Tensor) -> Tensor:
            eps = alpha.sqrt() * output + (1 - alpha).sqrt() * x_in if self._v else output
            return x - sigma * eps if sigma_space else eps

        self.last_uncond = answer(uncond)
        if self._effect:
            # What the two take the picture for: of eps that is sigma times as far apart.
            self._difference = difference(answer(cond), self.last_uncond)
            if not sigma_space:
                self._difference = self._difference * ((1 - alpha) / alpha).sqrt()
        return answer(uncond + self._guidance * (cond - uncond))

    def _network(self, x: Tensor, t: Tensor, by_pixel: bool) -> tuple[Tensor, Tensor]:
        """The network's answers without and with the prompt, at the scalar timestep ``(1,)`` or the map that is set."""
        scalar = t.expand(2 * len(x))
        if self._capture is not None:
            self._capture.begin((x.shape[-2], x.shape[-1]))
            self._capture.read(self._token_rows)
        try:
            dtype = next(self._unet.parameters()).dtype
            output = self._unet(torch.cat([x, x]).to(dtype), scalar, encoder_hidden_states=self._context).sample
            if by_pixel and self._time.calls == 0:
                raise RuntimeError("the network did not take the per-pixel timesteps")
        finally:
            self._time.use(None, ())
            if self._capture is not None:
                self._capture.read(())
        self.last_output = output
        uncond, cond = output.to(torch.promote_types(x.dtype, torch.float32)).chunk(2)
        return uncond, cond
