"""Bridges to other libraries: torchvision, ONNX, Ray, pipelines around the transformer."""
