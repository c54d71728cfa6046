"""Other people's models, with proof that they are the same networks."""

from robust_zoo.porting.convert import Report, port
from robust_zoo.porting.robustbench import Published, find_published, published
from robust_zoo.porting.tensors import PortError, read_tensors

__all__ = [
    "PortError",
    "Published",
    "Report",
    "find_published",
    "port",
    "published",
    "read_tensors",
]
