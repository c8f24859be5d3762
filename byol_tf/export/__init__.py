"""Exports to SavedModel, Keras, LiteRT and ONNX, each verified without byol_tf."""
