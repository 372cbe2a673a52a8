"""The second and third seam: the rescaled model call, time conditioning per pixel, attention capture."""
