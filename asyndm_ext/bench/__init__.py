"""``asyndm bench``: what a step costs with AsynDM, beside the same step without it."""
