"""HTTP API: URLs and JSON shapes. No other package knows them."""
