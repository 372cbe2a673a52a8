"""What gradio's picture controls give for a painted mask, as one picture. Without gradio, which differs by version."""

from __future__ import annotations

from typing import Any

from asyndm_ext.mask_image import encode


def written(value: Any) -> str:
    """The mask in base64, "" without one. Where something is painted, only the paint counts; else the picture does.

    Args:
        value: what the control gives: None, a Pillow image, gradio 3's ``{"image", "mask"}`` or gradio 4's
            ``{"background", "layers", "composite"}``.
    """
    if not isinstance(value, dict):
        return "" if value is None else encode(value)
    picture = value.get("image", value.get("background"))
    strokes = [value["mask"]] if value.get("mask") is not None else value.get("layers", [])
    for stroke in strokes:
        paint = stroke.getchannel("A") if "layers" in value else stroke.convert("L")
        if paint.getbbox():
            return encode(_together(strokes, "layers" in value))
    return "" if picture is None or not picture.getbbox() else encode(picture)


def _together(strokes: list[Any], transparent: bool) -> Any:
    from PIL import ImageChops

    layers = [stroke.getchannel("A") if transparent else stroke.convert("L") for stroke in strokes]
    paint = layers[0]
    for layer in layers[1:]:
        paint = ImageChops.lighter(paint, layer)
    return paint
