"""The photos: downloaded, listed, decoded, split, checked."""
