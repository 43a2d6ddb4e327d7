"""The Systems Manager Automation documents of the store and what they call."""
