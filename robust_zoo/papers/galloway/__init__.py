"""Galloway et al., Adversarial Training Versus Weight Decay (arXiv:1804.03308)."""
