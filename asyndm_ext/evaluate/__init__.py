"""``asyndm evaluate``: whether AsynDM helps, measured: prompts x seeds x methods, judged, with confidence intervals."""
