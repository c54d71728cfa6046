"""Certificates: lower bounds of robust accuracy, which hold against every attack."""

from robust_zoo.certification.bounds import Interval, Propagated, box, margins, propagate
from robust_zoo.certification.certify import METHODS, Certificates, certify
from robust_zoo.certification.graph import Graph, graph
from robust_zoo.certification.initial import initialise_for_bounds
from robust_zoo.certification.rules import (
    Affine,
    Monotone,
    NoRuleError,
    Valley,
    interval_rule,
    parts_of,
)

__all__ = [
    "METHODS",
    "Affine",
    "Certificates",
    "Graph",
    "Interval",
    "Monotone",
    "NoRuleError",
    "Propagated",
    "Valley",
    "box",
    "certify",
    "graph",
    "initialise_for_bounds",
    "interval_rule",
    "margins",
    "parts_of",
    "propagate",
]
