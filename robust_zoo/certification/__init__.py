"""Certificates: lower bounds of robust accuracy, which hold against every attack."""

from robust_zoo.certification.bounds import Interval, Propagated, box, margins, propagate
from robust_zoo.certification.certify import Certificates, certify, check_rules
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
from robust_zoo.certification.smoothing import (
    ABSTAIN,
    SmoothedCertificates,
    SmoothedClassifier,
    Smoothing,
    smooth,
)

__all__ = [
    "ABSTAIN",
    "Affine",
    "Certificates",
    "Graph",
    "Interval",
    "Monotone",
    "NoRuleError",
    "Propagated",
    "SmoothedCertificates",
    "SmoothedClassifier",
    "Smoothing",
    "Valley",
    "box",
    "certify",
    "check_rules",
    "graph",
    "initialise_for_bounds",
    "interval_rule",
    "margins",
    "parts_of",
    "propagate",
    "smooth",
]
