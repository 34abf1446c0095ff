"""The daemon as a test build: the product's own code, with crash points, planted bugs or a moved clock put in from outside.

Nothing of this is in the product, so there is nothing that could be armed there, and nothing that costs anything.
"""
