"""What Opportune does, cloud-neutral: each use case takes its dependencies and the time, and may be repeated."""
