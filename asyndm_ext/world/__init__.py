"""A little world of animals, things and places, drawn by code: what the embedded model is trained on and judged in."""
