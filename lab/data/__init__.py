"""Real data stores: PostgreSQL, Redis, AMQP and the replicated DynamoDB table."""
