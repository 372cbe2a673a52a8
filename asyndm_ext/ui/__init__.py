"""The panel, and what a job writes into the infotext."""
