"""Number formats, which layer has which, their simulation in torch, and ranges."""
