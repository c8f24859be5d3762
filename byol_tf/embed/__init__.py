"""A folder of photos seen through an encoder: what is kept of it, which photos are alike, a
classifier from a few labels."""
