"""Matplotlib figures as data: everything that a reader would notice, without rendering."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_hex


def described(figure) -> dict[str, Any]:
    """What a figure, or a part of one, shows."""
    found: dict[str, Any] = {"axes": [_axes(axes) for axes in figure.axes if axes.figure is figure]}
    for name, text in (("title", figure._suptitle), ("below", figure._supxlabel)):
        if text is not None:
            found[name] = [text.get_text(), text.get_fontsize()]
    if figure.legends:
        found["legends"] = [_legend(legend) for legend in figure.legends]
    if hasattr(figure, "get_size_inches") and not hasattr(figure, "parent"):
        found["size_in"] = list(figure.get_size_inches())
    if figure.subfigs:
        grid = figure.subfigs[0]._subplotspec.get_gridspec()
        found["widths"], found["parts"] = grid.get_width_ratios(), [described(part) for part in figure.subfigs]
    return found


def _axes(axes) -> dict[str, Any]:
    found: dict[str, Any] = {"on": axes.axison}
    if axes.get_label() == "<colorbar>":
        return {"bar": axes.get_ylabel()}
    place = axes.get_subplotspec()
    if place is not None:
        grid = place.get_gridspec()
        found["place"] = [place.rowspan.start, place.colspan.start, *grid.get_geometry()]
        found["heights"] = grid.get_height_ratios()
    found["words"] = [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.yaxis.label.get_fontsize()]
    found["limits"] = [*axes.get_xlim(), *axes.get_ylim()]
    found["kind"] = [axes.get_xscale(), axes.get_yscale(), str(axes.get_aspect())]
    grid_line = axes.xaxis.get_gridlines()[0] if axes.xaxis.get_gridlines() else None
    found["grid"] = None if grid_line is None or not grid_line.get_visible() else grid_line.get_alpha()
    found["ticks"] = bool(len(axes.get_xticks())), bool(len(axes.get_yticks()))
    found["lines"] = [_line(line) for line in axes.lines]
    found["images"] = [_image(image) for image in axes.images]
    found["points"] = [_points(points) for points in axes.collections]
    found["texts"] = [[t.get_text(), *t.get_position(), t.get_fontsize(), t.get_va(), t.get_family()] for t in axes.texts]
    if axes.get_legend() is not None:
        found["legend"] = _legend(axes.get_legend())
    return found


def _line(line) -> list[Any]:
    edge, width = to_hex(line.get_markeredgecolor()), line.get_linewidth()
    style = [line.get_linestyle(), width, to_hex(line.get_color()), line.get_drawstyle()]
    return [line.get_label(), np.asarray(line.get_xydata()), style, [line.get_marker(), line.get_markersize(), edge]]


def _image(image) -> dict[str, Any]:
    values = np.ma.filled(np.ma.asarray(image.get_array()).astype(float), np.nan)
    shown = [image.get_cmap().name, *image.get_clim()] if values.ndim == 2 else None
    return {"values": values, "colours": shown, "extent": list(image.get_extent()), "origin": image.origin,
            "interpolation": image.get_interpolation()}  # fmt: skip


def _points(points) -> dict[str, Any]:
    places = np.ma.filled(points.get_offsets(), np.nan)
    return {"at": places, "colours": points.get_facecolors(), "sizes": points.get_sizes(),
            "edges": list(points.get_linewidths()), "rasterized": bool(points.get_rasterized())}  # fmt: skip


def _legend(legend) -> list[Any]:
    handles = [to_hex(h.get_color() if hasattr(h, "get_color") else h.get_facecolor()) for h in legend.legend_handles]
    return [[t.get_text() for t in legend.get_texts()], [t.get_fontsize() for t in legend.get_texts()], handles, legend._loc]
