"""What was asked: run.toml as a typed, frozen `RunConfig`."""
