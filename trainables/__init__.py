"""How one configuration is trained and scored; knows nothing of search.

`trainables.variants` holds the LoRA variants and their contract. Importing this package loads neither
torch nor Ray.
"""
