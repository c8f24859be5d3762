"""Speed, measured in one run and printed as one JSON line. Outside the test run."""
