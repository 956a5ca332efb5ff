"""`raylora models ...`."""

HELP = "list or fetch base models"
