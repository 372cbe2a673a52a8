"""Forge: a patch on the job's UNet patcher, living while sampling runs. Imports `backend`, so only inside Forge."""
