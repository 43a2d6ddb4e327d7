"""What the CloudWatch Synthetics runtime executes: probe, journey and ledger, and the bundles they ship in."""
