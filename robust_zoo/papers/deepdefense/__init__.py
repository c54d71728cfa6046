"""Yan et al., Deep Defense: Training DNNs with Improved Adversarial Robustness (arXiv:1803.00404)."""
