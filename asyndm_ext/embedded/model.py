"""The embedded text-to-image model: Stable Diffusion's architecture, small enough for a laptop's CPU.

Three networks under one roof: a text transformer, an autoencoder with four latent channels at a quarter of the
picture's side, and diffusers' own ``UNet2DConditionModel`` with Stable Diffusion 2's layout (linear projections,
sine-cosine times, v-prediction, the same noise schedule). Whatever hooks into a Stable Diffusion UNet
finds the same modules here.

Sizes: a 128 x 128 picture is a 32 x 32 latent; cross-attention sits at 8 x 8, a quarter of the latent's side (and once
at 16 x 16). Everything is convolutional, so any picture whose sides are multiples of 32 pixels will do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asyndm_ext.embedded.vocabulary import Tokenizer

try:
    from diffusers import UNet2DConditionModel
except RuntimeError as error:  # what diffusers makes of an error in a package that it imports itself
    raise ImportError(
        f"diffusers cannot be imported ({error.__cause__ or error}); the packages that it uses have to suit torch"
    ) from error

WEIGHTS = Path(__file__).parent / "weights"
_WEIGHTS_FILE, _CONFIG_FILE = "tiny.safetensors", "config.json"


@dataclass(frozen=True)
class TinyConfig:
    """The shape of the model; saved next to its weights.

    ``beta_end`` is twice Stable Diffusion's: a scene is a few large areas of one colour, which show through far more
    noise than a photograph. With 0.012 the layout can be read off the last timestep, and the text goes unheeded.
    ``text_causal``: each word sees those before it, as in CLIP, so that a noun's row knows its adjective.
    """

    text_width: int = 96
    text_layers: int = 2
    text_heads: int = 4
    latent_channels: int = 4
    autoencoder_width: int = 48
    autoencoder_blocks: int = 2
    unet_channels: tuple[int, int, int] = (32, 64, 96)
    unet_heads: tuple[int, int, int] = (1, 2, 3)
    unet_layers: int = 1
    unet_groups: int = 16
    text_causal: bool = True
    beta_start: float = 0.00085
    beta_end: float = 0.025
    train_timesteps: int = 1000
    prediction_type: str = "v_prediction"


class TextEncoder(nn.Module):
    """Token rows to conditioning: embeddings plus learned positions, then a pre-norm transformer."""

    def __init__(self, config: TinyConfig, tokens: int, length: int, pad: int) -> None:
        super().__init__()
        self.pad = pad
        self.causal = config.text_causal
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
        """``ids`` (B, L) to (B, L, text_width).

        Padding comes out as zeros: columns that say nothing, where attention can rest, so that a word's column is high
        only where the word has a say.
        """
        padding = ids == self.pad
        later = (
            torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1) if self.causal else None
        )
        hidden = self.layers(self.token(ids) + self.position, mask=later, src_key_padding_mask=padding)
        return self.norm(hidden) * ~padding[..., None]


class _ResidualBlock(nn.Module):
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
    """Pictures in [0, 1] to raw latents at a quarter of the side, and back.

    The factor comes from rearranging pixels (4 x 4 x RGB = 48 channels), so all convolutions run at the small size.
    """

    factor = 4

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, blocks, latent = config.autoencoder_width, config.autoencoder_blocks, config.latent_channels
        pixels = 3 * self.factor**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(self.factor),
            nn.Conv2d(pixels, width, 3, padding=1),
            *(_ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, width, 3, padding=1),
            *(_ResidualBlock(width) for _ in range(blocks + 1)),
            nn.Conv2d(width, pixels, 3, padding=1),
            nn.PixelShuffle(self.factor),
        )
        # Set after the autoencoder's training so that the diffusion sees latents of mean 0 and deviation 1 per channel.
        self.register_buffer("latent_mean", torch.zeros(latent, 1, 1))
        self.register_buffer("latent_std", torch.ones(latent, 1, 1))

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to normalised latents (B, 4, H/4, W/4)."""
        return (self.encoder(images * 2 - 1) - self.latent_mean) / self.latent_std

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, 4, h, w) to (B, 3, 4h, 4w), around [0, 1] but not clipped."""
        return self.decoder(latents * self.latent_std + self.latent_mean) / 2 + 0.5


class TinyModel(nn.Module):
    """Tokenizer, text encoder, UNet, autoencoder and noise schedule of the embedded model."""

    latent_factor: int = Autoencoder.factor

    def __init__(self, config: TinyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyConfig()
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
        """Channels of a latent."""
        return self.config.latent_channels

    @property
    def alphas_cumprod(self) -> Tensor:
        """(1000,) float64: the share of signal variance left at each timestep (Stable Diffusion's scaled-linear betas).

        Double precision because samplers take differences of neighbouring values near 1.
        """
        config = self.config
        root = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.train_timesteps, dtype=torch.float64)
        return torch.cumprod(1 - root**2, dim=0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Token numbers (B, L), int64, on the model's device."""
        return torch.tensor([self.tokenizer.encode(text) for text in texts], device=self.device)

    @torch.no_grad()
    def encode_prompt(self, texts: Sequence[str]) -> Tensor:
        """Conditioning (B, L, C) of prompts; ``""`` is the unconditional one. Word ``i`` is row ``i + 1`` of L."""
        return self.text_encoder(self.token_ids(texts))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to latents (B, 4, H/4, W/4) of unit deviation; H and W are multiples of 32."""
        return self.autoencoder.encode(images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) to pictures (B, 3, 4h, 4w) in [0, 1]."""
        return self.autoencoder.decode(latents.to(self.autoencoder.latent_std.dtype)).clamp(0, 1)

    def save(self, folder: str | Path = WEIGHTS) -> None:
        """Write weights (half precision, half the size, no visible difference) and configuration."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        save_file({name: state[name].to("cpu", torch.float16).contiguous() for name in state}, folder / _WEIGHTS_FILE)
        (folder / _WEIGHTS_FILE).chmod(0o644)
        (folder / _CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")


def build_unet(config: TinyConfig) -> UNet2DConditionModel:
    """Stable Diffusion 2's UNet with three levels: attention at a quarter of the latent's side, and once at half of it.

    At half the side attention costs most and helps least, so the way up does without: nearly twice the steps an hour.
    """
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(config.unet_channels),
        # Diffusers' historical name: for this class it is the number of heads.
        attention_head_dim=tuple(config.unet_heads),
        layers_per_block=config.unet_layers,
        norm_num_groups=config.unet_groups,
        cross_attention_dim=config.text_width,
        use_linear_projection=True,
        flip_sin_to_cos=True,
        freq_shift=0,
    )


def load_tiny(folder: str | Path = WEIGHTS, device: str | torch.device = "cpu") -> TinyModel:
    """The trained model, in float32, ready to sample."""
    folder = Path(folder)
    if not (folder / _WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"no {_WEIGHTS_FILE} in {folder}; train one: python -m asyndm_ext.embedded.train --out training --export"
        )
    stored = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    values.setdefault("text_causal", False)  # weights from before there was a choice
    config = TinyConfig(**values)
    model = TinyModel(config)
    model.load_state_dict({name: value.float() for name, value in load_file(folder / _WEIGHTS_FILE).items()})
    return model.requires_grad_(False).eval().to(device)
