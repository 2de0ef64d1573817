"""Where the time of a file goes, by the graph that onnxruntime really runs."""
