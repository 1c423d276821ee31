"""Answers for other programs: maps, robots, reports."""
