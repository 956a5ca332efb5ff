"""vLLM's engine beside the hosts: it writes the answers that are scored, in a process of its own environment.

`start.start_engine` is the way in. `actor.Engine` is what hosts ask, through `trainables.written`; `child` is the
process, `inside/write.py` what runs there.
"""
