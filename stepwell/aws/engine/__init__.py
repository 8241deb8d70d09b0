"""The engine on AWS: the store in DynamoDB, the consumer of the queues, timers and the sweeper."""
