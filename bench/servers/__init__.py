"""Servers that `bench/peers.py` measures: how each is installed, started and asked.

Empty of imports: what runs in the servers' own environments comes through here.
"""
