"""NumPy reference of the numerics contract, written from the pages in docs/ alone."""
