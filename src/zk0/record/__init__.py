"""What a run leaves behind: its folder, metrics, log, charts and checkpoints."""
