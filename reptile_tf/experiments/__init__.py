"""The paper's figures: one file each, a list of runs and a plot."""
