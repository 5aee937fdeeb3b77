"""Programs that JAX has traced, read and changed."""
