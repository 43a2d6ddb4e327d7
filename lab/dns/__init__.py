"""Authoritative DNS for the store and a caching resolver per Region."""
