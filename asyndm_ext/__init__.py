"""AsynDM: every latent pixel on its own noise level (arXiv 2510.04504), for the Stable Diffusion WebUI.

The package imports torch only; what knows a host lives in :mod:`asyndm_ext.hosts`.
"""

__version__ = "0.2.0"
