"""A stand-in for the library that AWS ships in the Synthetics layer: what its documentation promises, and nothing that it does not.

Documentation: CloudWatch_Synthetics_Canaries_Library_Python (functions), CloudWatch_Synthetics_WritingCanary_Python (handlers, layout).
"""
