"""Classic CloudWatch metrics, which alarms and dashboards read: embedded metric format through PutLogEvents, or PutMetricData."""
