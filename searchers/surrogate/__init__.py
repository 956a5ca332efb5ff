"""The maths of the language-aided surrogate: prompt, embedding, deep kernel, acquisition, and the actor around them."""
