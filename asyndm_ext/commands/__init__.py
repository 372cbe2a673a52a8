"""The ``asyndm`` command line: a prompt draws a picture (:mod:`asyndm_ext.embedded.cli`), a command's name runs it.

No command's name is a word of the little world, so no prompt is taken for one. Nothing here imports torch.
"""
