"""How well training on a part of the rows foretells which recipe is best on all of them."""
