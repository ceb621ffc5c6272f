"""The flags of a run, from the command line to a frozen Config."""
