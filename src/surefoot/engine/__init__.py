"""It runs: the plan's parts put together, the loop, checkpoints, previews."""
