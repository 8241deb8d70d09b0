"""The platform on AWS: DynamoDB for state, SQS and EventBridge between, Lambda and ECS for steps."""
