"""Systems Manager Automation: documents of schema 0.3, executed step by step in lab time."""
