"""The AWS platform: DynamoDB stores state, SQS and EventBridge carry messages, Lambda and ECS run steps."""
