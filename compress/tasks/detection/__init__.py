"""Detection of objects by a single-stage detector without anchors: its loss, and its metric.

The detector divides an image into cells. For each cell it returns, in the order of rows, ``boxes``
``(n, cells, 4)``: how far the left, top, right and bottom edges are from the cell's center, in
widths of a cell; and ``scores`` ``(n, cells, classes)``: a logit for each class, each a yes or no.
Labels are ``boxes`` ``(n, most, 4)``, the corners ``x0, y0, x1, y1`` in pixels, and ``scores``
``(n, most)``, their classes; where an image has fewer than ``most`` boxes the rest is NaN and -1.
"""

from compress.tasks.detection.average_precision import MeanAveragePrecision
from compress.tasks.detection.boxes import Cells, Detections, detections
from compress.tasks.detection.loss import DetectionLoss

__all__ = ["Cells", "DetectionLoss", "Detections", "MeanAveragePrecision", "detections"]
