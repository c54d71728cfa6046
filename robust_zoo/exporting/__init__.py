"""Models for other runtimes, and what is left of their robustness there."""

from robust_zoo.exporting.figures import ExportFigures, measure_export
from robust_zoo.exporting.formats import FORMATS, export
from robust_zoo.exporting.runtimes import open_export

__all__ = ["FORMATS", "ExportFigures", "export", "measure_export", "open_export"]
