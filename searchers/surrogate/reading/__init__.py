"""How configurations are read: prompts, their tree of prefixes, attention over it, hidden states, their cache."""
