"""The WebUIs that these tests can be run against: how each is told from the others, how it is started on a CPU, and
what it lacks. Imports nothing but the standard library: the writers of the checkpoints run it with a WebUI's Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Nothing is to be downloaded or installed, and all is computed on the CPU in full precision.
_COMMON = (
    "--skip-prepare-environment",
    "--skip-python-version-check",
    "--skip-torch-cuda-test",
    "--skip-version-check",
    "--no-hashing",
    "--api",
    *("--server-name", "127.0.0.1"),
)
_DOWNLOADS = ("--no-download-sd-model", "--do-not-download-clip", "--disable-safe-unpickle")
_SD = ("tiny-sd1", "tiny-inpaint")
_LATER = ("tiny-zimage", "tiny-lumina2", "tiny-klein", "tiny-anima", "tiny-qwen-image", "tiny-qwen-image-edit")


@dataclass(frozen=True)
class Kind:
    """One WebUI; ``name`` is what ``Install.kind`` says."""

    name: str
    title: str
    """What AsynDM calls it."""
    flags: tuple[str, ...]
    models: tuple[str, ...]
    """The tiny checkpoints that it loads."""
    attention: str = ""
    """The flag that chooses an attention, unless a test chooses another one that begins with ``attention_is``."""
    attention_is: str = ""
    unet_in: str = "--unet-in-{}"
    """The flag for a network in half precision: bf16, fp16."""
    unet_in_full: tuple[str, ...] = ()
    """Which of the flags speak against that."""
    ckpt_dir: str = "--ckpt-dir"
    """The flag that names the folder of the checkpoints."""
    code: str = ""
    """The package that holds its networks: "backend", "ldm_patched", or "" where they are ldm's and sgm's own."""
    multiple: int = 8
    """What the sides of a picture are rounded to."""
    flows_only: tuple[str, ...] = ()
    """Samplers that have a meaning on rectified flows alone."""
    loads_late: bool = False
    """Whether a checkpoint is loaded by the first job only, not when it is chosen."""
    hires: dict[str, object] = field(default_factory=dict)
    """What a request has to say besides ``enable_hr``, or the WebUI fails on it."""
    options: dict[str, object] = field(default_factory=dict)
    """Settings without which it would download something."""

    @property
    def is_forge(self) -> bool:
        """Whether it is Forge or one of its relatives."""
        return bool(self.code)

    def side(self, pixels: float) -> int:
        """What a side of so many pixels becomes, of hires fix's second pass too."""
        nearest = self.multiple > 8  # the others cut off what is over
        return int((pixels + self.multiple / 2 * nearest) // self.multiple * self.multiple)


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "a1111",
            "AUTOMATIC1111",
            (*_COMMON, *_DOWNLOADS, "--use-cpu", "all", "--no-half", "--precision", "full"),
            (*_SD, "tiny-edit", "tiny-sd2", "tiny-sd2v", "tiny-sdxl", "tiny-sd3"),
        ),
        Kind(
            "forge",
            "Forge",
            (*_COMMON, *_DOWNLOADS, "--always-cpu", "--all-in-fp32", "--skip-install"),
            (
                *_SD,
                "tiny-edit",
                "tiny-sd2",
                "tiny-sd2v",
                "tiny-sdxl",
                "tiny-sd3",
                "tiny-sd35",
                "tiny-flux",
                "tiny-chroma",
            ),
            attention="--attention-pytorch",
            attention_is="--attention-",
            code="backend",
            loads_late=True,
            hires={"hr_additional_modules": ["Use same choices"]},
        ),
        Kind(
            "ersatz",
            "ersatzForge",
            (*_COMMON, "--disable-safe-unpickle", "--always-cpu", "--all-in-fp32", "--skip-install"),
            (*_SD, "tiny-edit", "tiny-sd2", "tiny-sd2v", "tiny-sdxl", "tiny-flux"),
            attention="--attention-pytorch",
            attention_is="--attention-",
            code="backend",
            loads_late=True,
            hires={"hr_additional_modules": ["Use same choices"]},
            options={"show_progress_type": "Approx cheap"},  # otherwise an autoencoder for previews, needed or not
        ),
        Kind(
            "neo",
            "Forge Neo",
            (
                *_COMMON,
                *("--skip-install", "--cpu", "--force-fp32", "--fp32-text-enc", "--fp32-vae", "--fp32-unet"),
            ),
            (*_SD, "tiny-sdxl", "tiny-flux", "tiny-chroma", *_LATER),
            attention="--use-pytorch-cross-attention",
            attention_is="--use-pytorch-cross-attention",
            unet_in="--{}-unet",
            unet_in_full=("--force-fp32", "--fp32-unet"),
            ckpt_dir="--ckpt-dirs",
            multiple=64,
            flows_only=("DPM++ 2s a RF",),
            code="backend",
            loads_late=True,
            hires={"hr_additional_modules": ["Use same choices"]},
        ),
        Kind(
            "classic",
            "Forge Classic",
            (*_COMMON, "--no-download-sd-model", "--skip-install", "--always-cpu", "--all-in-fp32"),
            (*_SD, "tiny-sdxl"),
            attention="--attention-pytorch",
            attention_is="--attention-",
            code="ldm_patched",
            hires={"hr_cfg_scale": 7},
        ),
        Kind(
            "reforge",
            "reForge",
            (*_COMMON, *_DOWNLOADS, "--always-cpu", "--all-in-fp32"),
            (*_SD, "tiny-sd2", "tiny-sd2v", "tiny-sdxl"),
            attention="--attention-pytorch",
            attention_is="--attention-",
            code="ldm_patched",
        ),
    )
}


TINY = frozenset(name for kind in KINDS.values() for name in kind.models)
"""All tiny checkpoints that there are."""


def kind_of(folder: Path) -> Kind:
    """The kind of the WebUI in this folder; what is none of Forge's relatives passes for AUTOMATIC1111."""
    if (folder / "backend" / "sampling").is_dir() and (folder / "packages" / "huggingface_guess").is_dir():
        return KINDS["ersatz"]
    if (folder / "backend" / "sampling").is_dir():
        return KINDS["neo" if (folder / "modules_forge" / "packages").is_dir() else "forge"]
    if (folder / "ldm_patched").is_dir() and (folder / "modules_forge").is_dir():
        return KINDS["reforge" if (folder / "k_diff").is_dir() else "classic"]
    return KINDS["a1111"]
