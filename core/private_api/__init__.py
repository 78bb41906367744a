"""The one place that touches private parts of Keras, TensorFlow, KerasTuner and Ray.

A file a library. Each function says why there is no public way, and a test shows when it breaks.
"""
