"""Which hooks a network takes, told by its structure: UNets of SD1, SD2 and SDXL, and diffusion transformers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from asyndm_ext.model.attention import AttentionCapture, CrossAttentionCapture
from asyndm_ext.model.cross_probabilities import memory_for
from asyndm_ext.model.timesteps import TimestepTable
from asyndm_ext.model.token_attention import TokenAttentionCapture
from asyndm_ext.model.transformers import layout_of
from asyndm_ext.model.unet_time import UNetTimeConditioning, UnsupportedModel


class TimeConditioning(Protocol):
    """A timestep for every pixel, while attached.

    Attributes:
        patch: side, in latent pixels, of what has one timestep: a token of a transformer; 1 where every pixel has its
            own.
        by_sigma: whether its tables hold the sigma in thousandths, whatever the network makes of it (transformers of
            rectified flows), rather than the timestep that the host has for a sigma.
    """

    patch: int
    by_sigma: bool

    @property
    def calls(self) -> int:
        """How often a part of the network was conditioned per pixel since the last :meth:`use`."""

    def attached(self) -> AbstractContextManager[Any]:
        """Hooks on the network live inside this block only."""

    def use(self, table: TimestepTable | None, rows: Sequence[int], along: Sequence[Tensor] = ()) -> list[Tensor]:
        """Set the map for the next model call; ``rows[i]`` is the image that the batch's row i belongs to.

        What the network needs of it is sent to it now, in one copy, so that nothing in its layers waits; and with it
        what goes ``along``, tensors of the CPU of 4 bytes a number. They come back beside the network; as they are
        without a table.

        The timesteps of a transformer are 1000 times the sigma of its rectified flow, whatever it makes of them.
        """


def is_dit(network: nn.Module) -> bool:
    """Whether the network is a diffusion transformer that AsynDM knows; raises UnsupportedModel as the others do."""
    return layout_of(network) is not None


def time_conditioning(network: nn.Module) -> TimeConditioning:
    """Raises UnsupportedModel: the message says what the network is."""
    layout = layout_of(network)
    return UNetTimeConditioning(network) if layout is None else layout.time()


def attention_capture(network: nn.Module, objects: int, images: int) -> AttentionCapture:
    """Args: number of objects, number of images in the batch. Raises UnsupportedModel: no attention to text found."""
    layout = layout_of(network)
    if layout is not None:
        return TokenAttentionCapture(layout, objects, images, memory_for(network))
    capture = CrossAttentionCapture(network, objects, images)
    if not capture.layers:
        raise UnsupportedModel(f"{type(network).__name__} has no cross-attention that AsynDM knows")
    return capture
