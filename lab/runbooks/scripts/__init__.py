"""What the runbooks' aws:executeScript steps run: each file is put into the documents as it is, and runs by itself."""
