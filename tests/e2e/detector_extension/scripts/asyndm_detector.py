"""Test extension: ADetailer's detector finds a face in the middle of every picture.

It is loaded before ADetailer and puts stand-ins of mediapipe and ultralytics, of which ADetailer uses a few functions,
in the place of the packages, whether they are installed or not. And NegPiP reads a file that is written with the page.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

from modules import shared

BOX = SimpleNamespace(xmin=0.25, ymin=0.25, width=0.5, height=0.5)


def face_detection(**settings):
    """A context whose ``process`` tells one face."""
    found = SimpleNamespace(score=0.9, location_data=SimpleNamespace(relative_bounding_box=BOX))
    return nullcontext(SimpleNamespace(process=lambda picture: SimpleNamespace(detections=[found])))


mediapipe, ultralytics = ModuleType("mediapipe"), ModuleType("ultralytics")
mediapipe.__version__, ultralytics.__version__ = "0.10.14", "8.3.75"
mediapipe.solutions = SimpleNamespace(
    face_detection=SimpleNamespace(FaceDetection=face_detection),
    drawing_utils=SimpleNamespace(draw_detection=lambda *args: None, DrawingSpec=lambda **settings: None),
)
ultralytics.YOLO = ultralytics.YOLOWorld = None
sys.modules.update(mediapipe=mediapipe, ultralytics=ultralytics)

page = Path(shared.cmd_opts.ui_config_file)
if not page.exists():
    page.write_text("{}", encoding="utf-8")
