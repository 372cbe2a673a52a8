"""The model of the little world: Stable Diffusion's architecture, small enough to train and sample on a laptop's CPU.

A text transformer, latents of twelve channels at an eighth of the picture's side, and diffusers' own
``UNet2DConditionModel`` with the modules of Stable Diffusion 2. A picture of 128 x 128 is a latent of 16 x 16;
cross-attention sits at its side and at half of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asyndm_ext.world.tokens import Tokenizer

try:
    from diffusers import UNet2DConditionModel
except RuntimeError as error:  # what diffusers makes of an error in a package that it imports itself
    raise ImportError(
        f"diffusers cannot be imported ({error.__cause__ or error}); the packages that it uses have to suit torch"
    ) from error

WEIGHTS = Path(__file__).parent / "weights"
FILES = _WEIGHTS_FILE, _CONFIG_FILE = "world.safetensors", "config.json"
"""Of a model's folder."""


@dataclass(frozen=True)
class WorldConfig:
    """The shape of the model; saved next to its weights. Widths are in channels.

    ``beta_end`` is twice Stable Diffusion's: a scene is large areas of one colour, which show through far more noise
    than a photograph. With 0.012 the ground can be read off the last timestep, and the text goes unheeded.
    """

    text_width: int = 96
    text_layers: int = 2
    text_heads: int = 4
    latent_channels: int = 12
    decoder_widths: tuple[int, int, int] = (96, 64, 32)
    unet_channels: tuple[int, int] = (64, 128)
    unet_heads: tuple[int, int] = (2, 4)
    unet_layers: int = 1
    unet_groups: int = 16
    beta_start: float = 0.00085
    beta_end: float = 0.025
    train_timesteps: int = 1000
    prediction_type: str = "v_prediction"


class TextEncoder(nn.Module):
    """Token rows to conditioning: embeddings plus learned positions, then a pre-norm transformer.

    Each word sees those before it, as in CLIP, so that a noun's row knows its adjective.
    """

    def __init__(self, config: WorldConfig, tokens: int, length: int, pad: int) -> None:
        super().__init__()
        self.pad = pad
        self.token = nn.Embedding(tokens, config.text_width)
        self.position = nn.Parameter(torch.randn(length, config.text_width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.text_width,
            config.text_heads,
            dim_feedforward=4 * config.text_width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.text_width)

    def forward(self, ids: Tensor) -> Tensor:
        """``ids`` ``(B,L)`` to ``(B,L,text_width)``.

        Padding comes out as zeros: columns that say nothing, where attention can rest, so that a word's column is high
        only where the word has a say.
        """
        padding = ids == self.pad
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        # Said, or torch compares the mask with a causal one, for which a GPU would have to be waited for.
        hidden = self.layers(self.token(ids) + self.position, mask=later, src_key_padding_mask=padding, is_causal=False)
        return self.norm(hidden) * ~padding[..., None]


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Autoencoder(nn.Module):
    """Pictures in [0, 1] to latents at an eighth of the side, and back.

    There is nothing to learn in encoding: a latent is the picture at a quarter of its side, each colour at mean 0 and
    deviation 1, and four of its pixels are one of the latent's. What that leaves out the decoder knows: it has seen the
    world's shapes.
    """

    factor = 8
    mean: Tensor
    std: Tensor

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        coarse, middle, fine = config.decoder_widths
        self.context = nn.Sequential(
            nn.Conv2d(config.latent_channels, coarse, 3, padding=1),
            _Residual(coarse),
            _Residual(coarse),
            nn.Conv2d(coarse, 4 * middle, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.shapes = nn.Sequential(
            nn.Conv2d(middle + 3, middle, 3, padding=1),
            _Residual(middle),
            _Residual(middle),
            _Residual(middle),
            nn.Conv2d(middle, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.outlines = nn.Sequential(_Residual(fine), nn.Conv2d(fine, 12, 3, padding=1), nn.PixelShuffle(2))
        # Of each colour in the world's pictures; set before the training.
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the colours' mean and deviation to those of pictures ``(B,3,H,W)`` in [0, 1]."""
        small = F.avg_pool2d(images, 4)
        self.mean.copy_(small.mean(dim=(0, 2, 3))[:, None, None])
        self.std.copy_(small.std(dim=(0, 2, 3))[:, None, None])

    def encode(self, images: Tensor) -> Tensor:
        """``(B,3,H,W)`` in [0, 1] to latents ``(B,12,H/8,W/8)``; channels as torch's ``pixel_unshuffle`` has them."""
        return self.latents(F.avg_pool2d(images, 4))

    def latents(self, small: Tensor) -> Tensor:
        """The picture at a quarter of its side, ``(B,3,H/4,W/4)`` in [0, 1], as latents."""
        return F.pixel_unshuffle((small - self.mean) / self.std, 2)

    def small(self, latents: Tensor) -> Tensor:
        """The picture ``(B,3,2h,2w)`` that latents ``(B,12,h,w)`` are, around [0, 1] but not clipped."""
        return F.pixel_shuffle(latents, 2) * self.std + self.mean

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B,12,h,w)`` to ``(B,3,8h,8w)``, around [0, 1] but not clipped."""
        small = self.small(latents)
        shapes = self.shapes(torch.cat([self.context(latents), small * 2 - 1], dim=1))
        rough = F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)
        return rough + self.outlines(shapes)


class WorldModel(nn.Module):
    """Tokenizer, text encoder, UNet, autoencoder and noise schedule."""

    latent_factor: int = Autoencoder.factor
    attention_halvings: int = 0
    """How often the latent was halved where the attention finds the objects."""

    def __init__(self, config: WorldConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WorldConfig()
        self.tokenizer = Tokenizer()
        self.text_encoder = TextEncoder(config, len(self.tokenizer), self.tokenizer.length, self.tokenizer.pad)
        self.autoencoder = Autoencoder(config)
        self.unet = build_unet(config)

    @property
    def prediction_type(self) -> str:
        """What the UNet returns: ``v_prediction``, v = sqrt(a) * noise - sqrt(1 - a) * latents."""
        return self.config.prediction_type

    @property
    def latent_channels(self) -> int:
        return self.config.latent_channels

    @property
    def alphas_cumprod(self) -> Tensor:
        """``(1000,)`` float64: the share of signal variance left at each timestep (scaled-linear betas).

        Double precision because samplers take differences of neighbouring values near 1.
        """
        config = self.config
        root = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_timesteps, dtype=torch.float64)
        return torch.cumprod(1 - root**2, dim=0)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Token numbers ``(B,L)``, int64, on the model's device."""
        return torch.tensor([self.tokenizer.encode(text) for text in texts], device=self.device)

    @torch.no_grad()
    def encode_prompt(self, texts: Sequence[str]) -> Tensor:
        """Conditioning ``(B,L,C)``; ``""`` is the unconditional one. Word ``i`` is row ``i + 1`` of L."""
        return self.text_encoder(self.token_ids(texts))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``(B,3,H,W)`` in [0, 1] to latents of unit deviation; H and W are multiples of 16."""
        return self.autoencoder.encode(images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures ``(B,3,H,W)`` in [0, 1]."""
        return self.autoencoder.decode(latents.to(self.autoencoder.std.dtype)).clamp(0, 1)

    def save(self, folder: str | Path = WEIGHTS) -> None:
        """Write weights (half precision) and configuration."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        save_file({name: state[name].to("cpu", torch.float16).contiguous() for name in state}, folder / _WEIGHTS_FILE)
        (folder / _WEIGHTS_FILE).chmod(0o644)
        (folder / _CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")


def build_unet(config: WorldConfig) -> UNet2DConditionModel:
    """Two levels, 16 x 16 and 8 x 8, both with attention.

    At 256 cells attention among the pixels costs most and helps least, so there the words are all that is attended to.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        only_cross_attention=(True, False),
        block_out_channels=tuple(config.unet_channels),
        attention_head_dim=tuple(config.unet_heads),  # diffusers' historical name: the number of heads
        layers_per_block=config.unet_layers,
        norm_num_groups=config.unet_groups,
        cross_attention_dim=config.text_width,
        use_linear_projection=True,
        flip_sin_to_cos=True,
        freq_shift=0,
    )


def load_world(folder: str | Path = WEIGHTS, device: str | torch.device = "cpu") -> WorldModel:
    """The trained model, in float32, ready to sample."""
    folder = Path(folder)
    if not (folder / _WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"no {_WEIGHTS_FILE} in {folder}; train one: python -m asyndm_ext.world.train --out training --export"
        )
    stored = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    model = WorldModel(WorldConfig(**values))
    model.load_state_dict({name: value.float() for name, value in load_file(folder / _WEIGHTS_FILE).items()})
    return model.requires_grad_(False).eval().to(device)
