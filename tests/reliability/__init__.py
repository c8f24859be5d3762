"""What goes wrong with runs of days, done to real processes on purpose. Most protections are also
taken out once, to see their test fail: `docs/results/reliability.md` lists which."""
