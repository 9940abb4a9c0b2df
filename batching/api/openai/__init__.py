"""The OpenAI door: /v1 as an official SDK expects it, so that a client only changes its base URL.

Files and batches of clients, in OpenAI's words and shapes; behind them are ClientFile and Submission. The
guard of every call is the one of /api. Never calls a provider.
"""
