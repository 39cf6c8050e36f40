"""Line plots as one self-contained SVG file."""

from __future__ import annotations

from local.charts import Line, Panel
from local.charts import picture as svg

__all__ = ["Line", "Panel", "svg"]
