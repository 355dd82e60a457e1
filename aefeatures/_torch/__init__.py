"""State of PyTorch in a process: random numbers, devices, ranks."""
