"""Writes a verdict to every descriptor, then ends."""

import json
import os
import struct

frames = b""
for frame in (["passed", ""], ["ready", ["dict"], None], ["done", 42, []]):
    body = json.dumps(frame).encode()
    frames += struct.pack(">I", len(body)) + body
for fd in range(64):
    try:
        os.write(fd, struct.pack(">I", len(frames)) + frames)
    except OSError:
        pass
os._exit(0)
