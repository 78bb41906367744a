"""What is searched over: parameters, the recipes' spaces, and how they are written."""
