"""Finding, reading and serving the training pictures and their captions."""
