"""Print how many tests passed, failed and were skipped in the JUnit files that are named; fail where none passed."""

from __future__ import annotations

import sys
from xml.etree import ElementTree


def main() -> int:
    """Exit status 0 where tests passed and none failed."""
    total = failed = skipped = 0
    for file in sys.argv[1:]:
        for suite in ElementTree.parse(file).iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    passed = total - failed - skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
