"""Read models that other libraries wrote, as data: bytes become a forest, bounded and checked. Knows no training."""
