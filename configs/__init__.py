"""The recipes: one JSON file each. A package only so that they are installed with the library;
`byol_tf.config.loading` reads them."""
