"""How clocks, slow pixels and filmstrips are drawn."""
