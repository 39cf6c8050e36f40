"""The embedded AWS: moto with a SageMaker that trains and serves, and the Lambda host."""
