"""The mathematics once more, in NumPy float64 and without the library: what the tests compare
with."""
