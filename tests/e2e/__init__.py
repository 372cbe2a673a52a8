"""End-to-end tests: the extension inside a real WebUI process, spoken to over HTTP.

They need an installed WebUI (AUTOMATIC1111 1.10.1), named by two environment variables, and are skipped without:

* ``ASYNDM_WEBUI``: the folder of the WebUI, set up (started once)
* ``ASYNDM_WEBUI_PYTHON``: its Python (default: ``venv/bin/python`` in that folder)

The install itself is left alone: settings, outputs, extensions and checkpoints of the tests live in a temporary
data folder, and so does the working directory.
"""
