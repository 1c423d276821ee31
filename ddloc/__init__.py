"""DDLoc, the sim-to-real baseline: photos in the style of renders, what translates badly painted over, then regressed.

After ARC (Zhao et al., "Domain decluttering", CVPR 2020), from depth to scene coordinates. See docs/ddloc.md.
"""
