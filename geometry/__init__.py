"""Cameras, poses, pixel grids and angles: pure functions, no state.

Pixel coordinates are continuous: pixel index i covers [i, i + 1), so the image centre is (W / 2, H / 2).
Camera axes are OpenCV's (x right, y down, z forward); a pose is camera-to-world, metres.
"""
