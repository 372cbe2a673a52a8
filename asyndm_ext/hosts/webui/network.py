"""The hooks on one loaded network: each pixel's own timestep goes in, the attention to the objects comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from asyndm_ext.hosts.webui.errors import AsynDMError
from asyndm_ext.model.attention import AttentionCapture, TokenRow
from asyndm_ext.model.network import attention_capture, time_conditioning
from asyndm_ext.model.timesteps import TimestepTable


class NetworkHooks:
    """Time conditioning and attention capture of a network, chosen by what it is built of.

    Args:
        network: the loaded network.
        objects: number of objects whose attention is wanted; 0 for none.
        images: number of images in the batch.

    Raises:
        UnsupportedModel: the network is of a kind that is not supported.
    """

    def __init__(self, network: Any, objects: int, images: int) -> None:
        self._time = time_conditioning(network)
        self._capture: AttentionCapture | None = attention_capture(network, objects, images) if objects else None

    @contextmanager
    def attached(self) -> Iterator[NetworkHooks]:
        """The hooks live inside this block only."""
        with ExitStack() as hooks:
            hooks.enter_context(self._time.attached())
            if self._capture is not None:
                hooks.enter_context(self._capture.attached())
            yield self

    def begin(self, latent_size: tuple[int, int]) -> None:
        """Forget the attention of earlier calls; the next ones are on latents of this ``(H, W)``."""
        if self._capture is not None:
            self._capture.begin(latent_size)

    @contextmanager
    def call(
        self, table: TimestepTable | None, images: Sequence[int], token_rows: Sequence[TokenRow | None]
    ) -> Iterator[None]:
        """One call of the network.

        Args:
            table: each image's timesteps, or None where the host's scalar holds for all pixels.
            images: the image that each row of the network's batch belongs to.
            token_rows: what to read from each row; None for rows that are not conditional.

        Raises:
            AsynDMError: the network has taken no timestep from the table.
        """
        self._time.use(table, images)
        if self._capture is not None:
            self._capture.read(token_rows)
        try:
            yield
            if table is not None and self._time.calls == 0:
                raise AsynDMError("AsynDM: the network did not take the per-pixel timesteps")
        finally:
            self._time.use(None, ())
            if self._capture is not None:
                self._capture.read(())

    def attention(self) -> Tensor | None:
        """The objects' maps ``(B,n,h,w)`` since :meth:`begin`, or None."""
        return self._capture.maps() if self._capture is not None else None
