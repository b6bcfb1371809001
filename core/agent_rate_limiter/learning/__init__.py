"""What is learned from answers: the limits of a provider, and what calls really use."""
