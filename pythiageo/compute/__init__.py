"""The machine: devices, memory, threads, and leaving a process as it was found."""
