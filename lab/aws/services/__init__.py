"""Our own strict AWS services, one module each."""
