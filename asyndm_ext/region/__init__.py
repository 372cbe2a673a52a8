"""Which pixels lag behind, and how far: masks, strengths and turns."""
