"""One sampling run: schedule, region and model brought together.

The road of a step: the region's strength map moves the clock, the clock gives the level map, the solver
steps to it, the model call captures the attention that makes the next region.

A solver reads :class:`Run`. A host makes one of its guided :class:`Model` and of what else it has, :class:`FromHost`.
"""

from asyndm_ext.run.from_host import FromHost, StepRecord
from asyndm_ext.run.model import Model, TellsChange, TellsUncond
from asyndm_ext.run.run import Run
from asyndm_ext.run.sent_maps import SentMaps

__all__ = ["FromHost", "Model", "Run", "SentMaps", "StepRecord", "TellsChange", "TellsUncond"]
