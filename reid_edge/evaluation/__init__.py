"""Ranking quality of features (CMC, mAP), of any engine, and quality of attributes."""
