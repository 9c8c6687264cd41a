"""The native ops as typed Python functions, one module per op."""
