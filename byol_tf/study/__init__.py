"""Studies: tables of runs that differ in a few keys."""
