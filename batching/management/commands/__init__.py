"""Commands of batching."""
