"""What a limiter says to people: how its limits stand, what binds, who has it, when it will be used up."""
