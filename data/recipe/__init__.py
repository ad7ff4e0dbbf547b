"""The recipe of the sticker world: its art, scenes, benchmark, and the training of its models."""
