"""Whether everything that a dataset root is made of is there and whole, and dropping what can be
computed again.
"""
