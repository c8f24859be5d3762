"""What watches a run. Nothing here changes what is learned."""
