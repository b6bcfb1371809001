"""Many machines: the limits in Redis or Valkey."""
