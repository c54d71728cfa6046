"""Certificates: lower bounds of robust accuracy, which hold against every attack."""

from robust_zoo.certification.bounds import Interval, box, margins, propagate
from robust_zoo.certification.certify import METHODS, Certificates, certify
from robust_zoo.certification.graph import graph
from robust_zoo.certification.rules import Affine, Monotone, NoRuleError, Valley, interval_rule

__all__ = [
    "METHODS",
    "Affine",
    "Certificates",
    "Interval",
    "Monotone",
    "NoRuleError",
    "Valley",
    "box",
    "certify",
    "graph",
    "interval_rule",
    "margins",
    "propagate",
]
