"""The training loop, its state, data, checkpoints and processes; nothing here knows a stage."""
