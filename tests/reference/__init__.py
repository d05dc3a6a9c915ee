"""NumPy reference of the numerics contract, written from the pages in docs/ alone."""

import os

# OpenBLAS threads wait by spinning. With many small products on a machine that has other work, that
# costs ten times what a second core gains. Only speed depends on this; it must precede NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
