"""What the variants are made of: the contract, matrices, layers, snapshots, exports."""
