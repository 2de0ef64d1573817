"""What lies in the folder of a cascade: numpy and onnxruntime alone, and nothing of ours."""
