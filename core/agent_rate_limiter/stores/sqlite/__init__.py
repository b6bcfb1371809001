"""Many processes on one machine: the limits in a file that survives them."""
