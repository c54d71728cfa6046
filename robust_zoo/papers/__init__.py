"""The papers' tables beside ours, measured on the zoo's models: a folder a paper.

In it, paper.json has the numbers of the paper and tables.py says how ours are measured.
"""
