"""``asyndm studio``: the panel of the WebUI's extension on a page of its own, with the embedded model behind it.

The road of a picture: :mod:`.page` (what is pressed) → :mod:`.request` (the job) → :mod:`.engine` (the sampling, in a
thread of its own) → :mod:`.views` (what is seen).
"""
