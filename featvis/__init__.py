"""featvis."""
