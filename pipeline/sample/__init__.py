"""The embedded catalog of real films."""
