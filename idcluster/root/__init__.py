"""The dataset root: files put whole on a disk or in an object store, snapshots, the lease, and what
else lies in a root.
"""
