"""`raylora bench ...`."""

HELP = "measure raylora on this machine"
