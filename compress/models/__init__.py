"""Models from settings: an architecture with weights, a folder of the hub, code of one's own."""
