"""People from tracklets: centring, re-ranking, constraints, calibrated verdicts, clustering and assignment, on arrays.

``docs/identity.md`` describes the method, with its sources and figures.
"""
