"""What operators and monitoring ask for: health, metrics, nodes, the page at /."""
