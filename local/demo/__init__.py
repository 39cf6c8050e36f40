"""`opportune demo`: workload, load generator, measurements, report."""
