"""What people are shown: durations, progress, tables and figures."""
