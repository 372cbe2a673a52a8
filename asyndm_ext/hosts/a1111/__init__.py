"""AUTOMATIC1111 1.10: per-job hooks on its sampler and CFG denoiser. Imports `modules`, so only inside the WebUI."""
