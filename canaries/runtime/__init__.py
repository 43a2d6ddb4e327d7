"""A local stand-in for the Synthetics Python runtime: the documented library and the wrapper that runs a bundle."""
