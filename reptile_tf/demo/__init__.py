"""The authors' interactive demonstration: draw, and see it learn."""
