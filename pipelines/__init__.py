"""Images in, batches of views out.

`sources` opens images, `policy` describes views, `views` makes them, `batches` orders both into an
endless stream. The package knows nothing of `byol_tf`.
"""
