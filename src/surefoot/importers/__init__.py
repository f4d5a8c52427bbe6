"""Other trainers' files: what their runs really do, in surefoot's own terms. No torch."""
