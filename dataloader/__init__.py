"""Prepared sections in, normalised and augmented batches out."""
