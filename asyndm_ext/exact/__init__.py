"""A world whose denoiser is known exactly: a wind tunnel for solvers, curves and regions, minutes on a CPU."""
