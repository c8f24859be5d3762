"""The encoder in the formats of others, each proven where byol_tf isn't."""
