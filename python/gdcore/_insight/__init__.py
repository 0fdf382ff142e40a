"""What curvature tells before the first step, and many runs in one pass."""
