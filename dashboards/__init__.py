"""CloudWatch dashboards: rendered, validated as PutDashboard would, and drawn locally."""
