"""What is made of finished runs: sweeps, comparisons, strategies, and where their files go."""
