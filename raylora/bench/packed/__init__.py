"""Trials that share passes against the same trials one at a time, in one run on this machine."""
