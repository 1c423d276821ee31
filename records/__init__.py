"""What was made from what: atomic files, fingerprints of contents, and the typed record of a run."""
