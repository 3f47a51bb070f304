"""Data, model and loop behind the notebooks: fine-tuning ResNets on photos of flowers."""
