"""Fetches a page."""

import urllib.request


def solve():
    urllib.request.urlopen("http://127.0.0.1:@PORT@/", timeout=2)
    return 42
