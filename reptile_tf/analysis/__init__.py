"""Section 5, measured: the expansion of the rules, and where Reptile ends."""
