"""Web pages in a real browser, Chromium. Run by `make test-pages`."""
