"""What a run costs, and what of it a budget allows."""
