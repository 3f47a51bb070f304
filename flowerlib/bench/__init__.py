"""How fast training is, and beside what."""
