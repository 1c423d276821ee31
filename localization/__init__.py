"""From views to answers: preprocess, predict, solve, refine against the map, judge."""
