"""Kurakin et al., Adversarial Machine Learning at Scale (arXiv:1611.01236)."""
