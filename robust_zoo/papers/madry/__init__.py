"""Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (arXiv:1706.06083)."""
