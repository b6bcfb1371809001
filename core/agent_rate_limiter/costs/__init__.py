"""What calls cost: whose price holds, the books of each account, and how they are shown."""
