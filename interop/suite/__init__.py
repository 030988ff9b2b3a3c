"""What run.py is made of: brokers, clients, their toolchains, and the report."""
