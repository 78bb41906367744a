"""`keras-practice gpu-check`: what a person with a GPU runs, since this was written where there is none."""
