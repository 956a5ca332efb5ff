"""A tuned adapter over its base behind the interface of OpenAI's server.

`serve.serve` is the way in. `requests` reads what clients ask, `prompts` puts it to the model as training did,
`trainables.answers` continues it, `app` tells it, `listening` is the socket.
"""
