"""What probe, journey and ledger share inside their bundles. Only the standard library, boto3 and vendored packages are imported here."""
