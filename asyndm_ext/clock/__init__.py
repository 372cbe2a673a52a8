"""Each pixel's way from noise to picture: the curves, and the noise level at every height."""
