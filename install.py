"""Run by the WebUI before it starts. AsynDM uses what every WebUI has; this only says so if something is missing."""

import importlib.util

NEEDED = {
    "torch": "all of the maths",
    "numpy": "masks and previews",
    "gradio": "the panel",
    "tqdm": "the progress bar in the console",
}

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
for name in missing:
    print(
        f"AsynDM: the WebUI's environment has no {name} ({NEEDED[name]}). "
        "It belongs to the WebUI itself; please repair the WebUI's installation. AsynDM installs nothing."
    )
