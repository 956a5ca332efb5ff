"""What an answer is worth: one file per metric."""
