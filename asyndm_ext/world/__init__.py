"""A little world of animals, things and places, drawn by code, with a model and a judge to train in it.

    python -m asyndm_ext.world.train --out training --export
    python -m asyndm_ext.world.judge

No weights of it are in the package yet: the embedded model draws coloured shapes (:mod:`asyndm_ext.embedded`).
"""
