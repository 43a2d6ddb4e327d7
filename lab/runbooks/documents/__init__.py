"""The Automation documents, one YAML file each (see `lab.runbooks`)."""
