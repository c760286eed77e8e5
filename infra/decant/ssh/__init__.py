"""SSH to the machines: keys, connections, and the steps that need nothing else."""
