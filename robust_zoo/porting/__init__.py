"""Other people's models, with proof that they are the same networks."""

from robust_zoo.porting.convert import Report, call_of, port
from robust_zoo.porting.robustbench import Published, find_published, published
from robust_zoo.porting.tensors import PortError, Tensors, read_file

__all__ = [
    "PortError",
    "Published",
    "Report",
    "Tensors",
    "call_of",
    "find_published",
    "port",
    "published",
    "read_file",
]
