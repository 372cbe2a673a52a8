"""A little world of animals, things and places, drawn by code, and the model that has learned it.

    python -m asyndm_ext.world.train --out training --export
    python -m asyndm_ext.world.train_judge

:mod:`asyndm_ext.embedded` samples from the model.
"""
