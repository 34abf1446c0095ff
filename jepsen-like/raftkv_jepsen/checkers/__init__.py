"""What judges a history. Each checker takes operations and returns a Verdict; none knows how they came to be."""
