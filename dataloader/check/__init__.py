"""`python -m dataloader.check DIR`: what is wrong with a prepared data set, before training finds out.

Every file is read once, each problem is a `Finding` of a named kind, and one bad file never stops the rest.
"""
