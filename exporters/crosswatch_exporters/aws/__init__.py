"""What AWS needs of a client: credentials that refresh, and signatures."""
