"""How and where tasks are run: compilation, threads, memory, replicas."""
