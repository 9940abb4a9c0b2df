"""Getting results to whoever asked, at least once: destinations, attempts, senders, retries."""
