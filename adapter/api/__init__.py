"""What clients see: URLs and JSON shapes. Nothing below knows them."""
