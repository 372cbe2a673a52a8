"""What a prompt says: its words without the WebUI's syntax, and which of them name things to draw."""
