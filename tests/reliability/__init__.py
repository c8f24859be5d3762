"""What goes wrong with runs of days, done to real processes on purpose; each protection is also taken out once, to see its test fail."""
