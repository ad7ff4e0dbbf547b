"""The shapes world: pictures drawn from a seed, and the small models trained on them."""
