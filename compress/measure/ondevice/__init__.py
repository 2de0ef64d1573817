"""What runs on the device that is measured: numpy and onnxruntime are all that it needs."""
