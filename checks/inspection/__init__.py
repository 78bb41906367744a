"""What is looked at: the model, its samples, its outputs and its gradients."""
