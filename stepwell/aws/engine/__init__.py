"""The engine on AWS: its store in DynamoDB, the consumers of the queues, timers and the sweeper."""
