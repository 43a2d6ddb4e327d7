"""The child side of the sandbox: what Lambda's bootstrap and the layer's wrapper do around a script."""
