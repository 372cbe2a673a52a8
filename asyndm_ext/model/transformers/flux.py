"""Flux: blocks of two streams, then of one. FLUX.1 has a modulation in each; FLUX.2 has three for the whole network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asyndm_ext.model.dit_time import AdaLN, DiTTimeConditioning
from asyndm_ext.model.token_modulation import Input, Modulation, Output
from asyndm_ext.model.transformers.layout import Attention, Layout, Shown


def is_flux(network: Any) -> bool:
    """FLUX.1: dev, schnell, Krea, Kontext."""
    return hasattr(network, "time_in") and hasattr(first_double_block(network), "img_mod")


def is_flux2(network: Any) -> bool:
    """FLUX.2: Klein."""
    return hasattr(network, "time_in") and hasattr(network, "double_stream_modulation_img")


def first_double_block(network: Any) -> Any:
    return next(iter(getattr(network, "double_blocks", [])), None)


def layout(network: Any) -> Layout:
    """FLUX.1's."""
    double = [
        AdaLN(block.img_mod, block.img_mod.lin, one)
        for block, one in zip(network.double_blocks, double_modulations(network), strict=True)
    ]
    single = [
        AdaLN(block.modulation, block.modulation.lin, one)
        for block, one in zip(network.single_blocks, single_modulations(network), strict=True)
    ]
    return flux_layout(network, 2, lambda: DiTTimeConditioning(network.time_in, [*double, *single, _last(network)]))


def flux2_layout(network: Any) -> Layout:
    """FLUX.2's: what the blocks of FLUX.1 have for themselves all of them share."""
    double, single = network.double_stream_modulation_img, network.single_stream_modulation
    adaln = [
        AdaLN(double, double.lin, _shared(double_modulations(network))),
        AdaLN(single, single.lin, _shared(single_modulations(network))),
        _last(network),
    ]
    patch = int(network.patch_size)
    return flux_layout(network, patch, lambda: DiTTimeConditioning(network.time_in, adaln, patch))


def flux_layout(network: Any, patch: int, time: Any) -> Layout:
    """Of any network of Flux's blocks."""
    return Layout(patch, time, tuple(_attentions(network)), network.pe_embedder, network.img_in)


def double_modulations(network: Any) -> Iterator[Modulation]:
    """Of the blocks of two streams, for the image's."""
    for block in network.double_blocks:
        inputs = (Input(block.img_attn.qkv, 0, 1), Input(block.img_mlp, 3, 4))
        yield Modulation(inputs, (Output(block.img_attn.proj, 2), Output(block.img_mlp, 5)))


def single_modulations(network: Any) -> Iterator[Modulation]:
    """Of the blocks of one stream."""
    for block in network.single_blocks:
        yield Modulation((Input(block.linear1, 0, 1),), (Output(block.linear2, 2),), with_text=True)


def last_modulation(network: Any) -> Modulation:
    return Modulation((Input(network.final_layer.linear, 0, 1),))


def _last(network: Any) -> AdaLN:
    return AdaLN.of(network.final_layer.adaLN_modulation, last_modulation(network))


def _shared(modulations: Iterator[Modulation]) -> Modulation:
    """One whose chunks go where those of all others go."""
    every = list(modulations)
    inputs = tuple(site for one in every for site in one.inputs)
    outputs = tuple(site for one in every for site in one.outputs)
    return Modulation(inputs, outputs, every[0].with_text)


def _attentions(network: Any) -> Iterator[Attention]:
    for block in network.double_blocks:
        image = Shown(block.img_attn.norm, ("queries", "keys"), heads_first=True)
        yield image, Shown(block.txt_attn.norm, (None, "text_keys"), heads_first=True)
    for block in network.single_blocks:
        yield (Shown(block.norm, ("all_queries", "all_keys"), heads_first=True),)
