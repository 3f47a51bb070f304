"""The photos: listed, decoded, split, checked."""
