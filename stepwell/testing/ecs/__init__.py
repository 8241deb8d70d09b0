"""ECS on Fargate in tests: container steps run by podman or docker."""
