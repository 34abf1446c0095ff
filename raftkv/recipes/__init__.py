"""Recipes: locks, elections, queues and the like, each written on the verbs of the client alone.

Every recipe exists twice, for asyncio and for threads, and is written once (verbs.py says how). docs/recipes.md is the page for users; each
file header explains the trick of its recipe.
"""
