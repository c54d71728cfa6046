"""What is shown of a record: cards, pictures and citations."""
