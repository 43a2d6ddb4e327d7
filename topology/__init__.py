"""The typed model of topology.yaml and the catalogue of every signal that Crosswatch uses."""
