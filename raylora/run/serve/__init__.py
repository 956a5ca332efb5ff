"""A tuned adapter over its base behind the interface of OpenAI's server.

`serve.serve` is the way in. With `transformers` the server is here: `requests` reads what clients ask, `prompts` puts
it to the model as training did, `trainables.answers` continues it, `app` tells it, `listening` is the socket. vLLM and
llama.cpp bring servers of their own, which `with_vllm` and `with_llamacpp` start.
"""
