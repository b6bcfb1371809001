"""The life of one call: which limits it is under, how it stands in line, where it goes, how it is settled."""
