"""How good a frozen representation is."""
