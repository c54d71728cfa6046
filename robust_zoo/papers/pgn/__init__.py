"""Perturbation Generator Networks (2020)."""
