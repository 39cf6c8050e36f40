"""AWS behind the ports, through boto3. Every adapter is given the process's one `session.AwsSession`."""
