"""The embedded AWS and Azure, and both together (cluster)."""
