"""How the weights may move: full fine-tuning, LoRA, DoRA."""
