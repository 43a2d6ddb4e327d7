"""Per-Region CloudFormation templates and artifacts, assembled from the rooms, and their deployment."""
