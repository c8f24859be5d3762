"""Recipes, one JSON file each; a package only so that they are installed with the library.

`byol_tf.config.loading` reads them.
"""
