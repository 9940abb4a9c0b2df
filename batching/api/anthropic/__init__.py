"""The Anthropic door: message batches under /v1/messages, for an official Anthropic SDK with our base URL.

`urls` has the table, `door` the words, `taking` reads what a batch is made of. A batch is a Submission.
"""
