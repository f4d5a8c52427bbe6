"""Model families: a torch-free table of facts, and one thin module each."""
