"""What runs on one machine: embedded clouds, function runtimes, the demo and its report."""
