"""The specification of Batcher, as tests."""
