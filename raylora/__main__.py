"""`python -m raylora ...` is `raylora ...`."""

from raylora.cli import main

raise SystemExit(main())
