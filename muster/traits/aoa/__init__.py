"""The area of applicability: dissimilarity index, threshold, and nearest training plots."""
