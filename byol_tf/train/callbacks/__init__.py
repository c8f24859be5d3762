"""Keras callbacks for monitoring and checkpointing; none changes what is learned."""
