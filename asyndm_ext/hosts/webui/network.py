"""The hooks on one loaded network: each pixel's own timestep goes in, the attention to the objects comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from asyndm_ext.hosts.webui.errors import NotApplied
from asyndm_ext.model.attention import AttentionCapture, TokenRow
from asyndm_ext.model.network import attention_capture, time_conditioning
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.unet_time import UnsupportedModel


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
        if is_compiled(network):
            raise UnsupportedModel(f"{type(network).__name__} is compiled, and takes no timestep per pixel then")
        self.network = network
        self._time = time_conditioning(network)
        self.patch = self._time.patch
        """Side, in latent pixels, of what has one timestep."""
        self.by_sigma = self._time.by_sigma
        """Whether the tables hold the sigma in thousandths rather than the host's timestep."""
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
        self,
        table: TimestepTable | None,
        images: Sequence[int],
        token_rows: Sequence[TokenRow | None],
        along: Sequence[Tensor] = (),
    ) -> Iterator[list[Tensor]]:
        """One call of the network. Inside it, what goes along with the table is beside the network.

        Args:
            table: each image's timesteps, or None where the host's scalar holds for all pixels.
            images: the image that each row of the network's batch belongs to.
            token_rows: what to read from each row; None for rows that are not conditional.
            along: see :class:`asyndm_ext.model.network.TimeConditioning`.

        Raises:
            NotApplied: the network has taken no timestep from the table.
        """
        brought = self._time.use(table, images, along)
        if self._capture is not None:
            self._capture.read(token_rows)
        try:
            yield brought
            if table is not None and self._time.calls == 0:
                raise NotApplied("the network did not take the per-pixel timesteps")
        finally:
            self._time.use(None, ())
            if self._capture is not None:
                self._capture.read(())

    def attention(self) -> Tensor | None:
        """The objects' maps ``(B,n,h,w)`` since :meth:`begin`, or None."""
        return self._capture.maps() if self._capture is not None else None


def is_compiled(network: Any) -> bool:
    """Whether ``torch.compile`` has been at the network, or at a part of it: what it runs then knows no hooks."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in network.modules()
    )
