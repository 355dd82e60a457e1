"""State of PyTorch that a process shares: random numbers, devices, ranks."""
