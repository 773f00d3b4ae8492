"""The native engine: its library, written in C (``native/``), and the plans that it runs; without torch."""
