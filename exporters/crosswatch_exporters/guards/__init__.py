"""What may leave the process: values redacted, series limited, traces sampled, synthetic traffic marked."""
