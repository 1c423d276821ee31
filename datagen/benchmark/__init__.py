"""The published benchmark: its raw data sets to prepared sections, and small raw data sets that look like them."""
