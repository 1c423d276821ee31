"""From weights to numbers: predictions, poses, metrics, reports, pictures and the choice of a checkpoint."""
