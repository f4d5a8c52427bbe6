"""The tokenizer: CLIP's own kind, with a small vocabulary learnt from the captions."""

from __future__ import annotations

import json

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

VOCABULARY_SIZE = 2048
# Stable Diffusion pads to 77; no caption here is longer than 20, and the text encoder and the
# cross-attention are paid by length.
MAX_LENGTH = 32


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A byte-level BPE tokenizer that can spell anything and knows the captions' words whole."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    blank = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        pad_token="<|endoftext|>",
        model_max_length=MAX_LENGTH,
    )
    learnt = blank.train_new_from_iterator(iter(captions), vocab_size=VOCABULARY_SIZE)
    model = json.loads(learnt.backend_tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for token in tokens:  # learning dropped the bytes that no caption holds
        vocabulary.setdefault(token, len(vocabulary))
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in model["merges"]],
        pad_token="<|endoftext|>",
        model_max_length=MAX_LENGTH,
    )
