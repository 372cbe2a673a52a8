"""A guided model, once as a WebUI calls it and once with AsynDM in front: the same network, the same formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asyndm_ext.bench.cases import Kind
from asyndm_ext.clock.noise import NoiseTable
from asyndm_ext.hosts.webui.network import NetworkHooks
from asyndm_ext.model.attention import TokenRow
from asyndm_ext.model.call import eps_denoised, flow_denoised, v_denoised
from asyndm_ext.model.network import is_dit
from asyndm_ext.model.timesteps import QUANTUM, TimestepTable, is_uniform

Network = Callable[[Tensor, Tensor], Tensor]
"""``(N,C,H,W)`` and timesteps ``(N,)`` -> ``(N,C,H,W)``; whatever else the network takes is bound."""

_RESCALED = {"eps": eps_denoised, "v": v_denoised, "flow": flow_denoised}


class Host:
    """What a WebUI does by itself: scalings for a scalar sigma, the batch of both prompts, guidance.

    Args:
        network: see :data:`Network`.
        kind: what it predicts.
        table: noise levels of eps and v models.
        guidance: CFG scale, or None for a network that takes one row per image.
        dtype: of the network.
    """

    def __init__(
        self, network: Network, kind: Kind, table: NoiseTable, guidance: float | None, dtype: torch.dtype
    ) -> None:
        self.network, self.kind, self.table, self.guidance, self.dtype = network, kind, table, guidance, dtype
        self._log_sigmas: Tensor | None = None

    def rows(self, images: int) -> list[int]:
        """Which image each row of the network's batch belongs to."""
        return list(range(images)) * (1 if self.guidance is None else 2)

    def batched(self, x: Tensor) -> Tensor:
        return x if self.guidance is None else torch.cat([x, x])

    def combined(self, rows: Tensor) -> Tensor:
        """Classifier-free guidance."""
        if self.guidance is None:
            return rows
        uncond, cond = rows.chunk(2)
        return uncond + self.guidance * (cond - uncond)

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The innermost wrapper: ``(N,C,H,W)`` float32 at a scalar level per row ``(N,)``."""
        s = sigma.view(-1, 1, 1, 1)
        if self.kind == "flow":
            return x - s * self._call(x, 1000 * sigma)
        answer = self._call(x / (s**2 + 1).sqrt(), self._timesteps(sigma))
        if self.kind == "eps":
            return x - s * answer
        return x / (s**2 + 1) - answer * s / (s**2 + 1).sqrt()

    def _timesteps(self, sigma: Tensor) -> Tensor:
        """Of sigmas ``(N,)``, where they are, as k-diffusion has it."""
        if sigma.device.type == "cpu":
            return self.table.sigma_to_t(sigma).to(sigma)
        if self._log_sigmas is None:
            self._log_sigmas = self.table.log_sigmas.to(sigma)
        log, table = sigma.log(), self._log_sigmas
        low = (torch.searchsorted(table, log, right=True) - 1).clamp(0, len(table) - 2)
        start, end = table.index_select(0, low), table.index_select(0, low + 1)
        return low + ((log - start) / (end - start)).clamp(0, 1)

    def _call(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x.to(self.dtype), t).float()

    def plain(self, x: Tensor, nominal: float) -> Tensor:
        """The guided call without AsynDM."""
        both = self.batched(x)
        return self.combined(self.denoised(both, torch.full((len(both),), nominal, device=x.device)))


class PixelModel:
    """The guided call with AsynDM, as the WebUIs' adapters make it (:class:`asyndm_ext.run.Model`).

    Args:
        host: the model without.
        network: the module that the hooks go to.
        columns: for each image, for each object, its tokens' columns.
        table_of: makes the table from a map of timesteps; by default it is of the distinct ones.
        capture: whether to read the attention.
    """

    def __init__(
        self,
        host: Host,
        network: nn.Module,
        columns: Sequence[Sequence[Sequence[int]]],
        table_of: Callable[[Tensor], TimestepTable] | None = None,
        capture: bool = True,
    ) -> None:
        self._host = host
        self._images = len(columns)
        self._own_table = table_of
        self.hooks = NetworkHooks(network, len(columns[0]) if capture else 0, self._images)
        self.by_patch = is_dit(network)
        rows: list[TokenRow | None] = [TokenRow(image, own) for image, own in enumerate(columns)]
        self._token_rows = rows if host.guidance is None else [*[None] * self._images, *rows]
        self.distinct = 0
        """Timesteps per image of the last call, the most of any image."""

    @contextmanager
    def attached(self) -> Iterator[PixelModel]:
        with self.hooks.attached():
            yield self

    def attention(self) -> Tensor | None:
        return self.hooks.attention()

    def timesteps(self, level: Tensor) -> Tensor:
        return 1000 * level if self._host.kind == "flow" else self._host.table.sigma_to_t(level)

    def _table_of(self, level: Tensor) -> TimestepTable:
        if self._own_table is not None:
            return self._own_table(self.timesteps(level))
        return TimestepTable.from_map(level, QUANTUM, self.timesteps)

    def __call__(self, x: Tensor, nominal: float, level: Tensor) -> Tensor:
        host = self._host
        rows = host.rows(len(x))
        table = None if is_uniform(level) else self._table_of(level).to(x.device)
        self.distinct = 1 if table is None else max(table.counts)
        self.hooks.begin((x.shape[-2], x.shape[-1]))
        both = host.batched(x)
        s = torch.full((len(both),), nominal, device=x.device)
        levels = [] if table is None else [level.float()[rows]]
        with self.hooks.call(table, rows, self._token_rows, levels) as maps:
            if table is None:
                return host.combined(host.denoised(both, s))
            rescaled: Any = _RESCALED[host.kind]
            answer = rescaled(lambda x_in: host.denoised(x_in, s), both, s.view(-1, 1, 1, 1), maps[0])
        return host.combined(answer)
