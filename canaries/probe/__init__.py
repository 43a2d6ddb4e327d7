"""The probe: one run, all targets and pages, in rounds within the minute, each round's observations written to every Region at once."""
