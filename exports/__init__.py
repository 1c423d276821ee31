"""Answers for other programs: maps, robots, reports."""

from exports.footprints import GroundPoint, footprint, locate
from exports.georeference import GeoPose, Georeference
from exports.writing import write_all, write_maps

__all__ = ["GeoPose", "Georeference", "GroundPoint", "footprint", "locate", "write_all", "write_maps"]
