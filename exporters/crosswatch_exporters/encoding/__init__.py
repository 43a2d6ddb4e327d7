"""Encoders from the SDK's objects to OTLP protobuf bytes, and the blocks they are packed into."""
