"""The page's own styles and scripts, and those of the panel, which a WebUI loads as well."""

import sysconfig
from pathlib import Path

import asyndm_ext

_HERE = Path(__file__).parent
_EXTENSION = Path(asyndm_ext.__file__).parents[1]
_INSTALLED = Path(sysconfig.get_path("data"), "share", "asyndm-webui")
"""Where the panel's script and style lie: in the extension's folder, or where an installed package has them."""


def text_of(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def panel_text_of(name: str) -> str:
    """Of a file that a WebUI loads as well.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for path in (_EXTENSION / name, _INSTALLED / Path(name).name):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is neither in {_EXTENSION} nor in {_INSTALLED}")
