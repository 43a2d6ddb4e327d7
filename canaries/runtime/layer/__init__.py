"""What AWS's Lambda layer would bring: a folder for ``sys.path`` that holds the stand-in for ``aws_synthetics`` and nothing else."""
