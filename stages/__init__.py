"""The stages: Arrow in, Arrow out. Models live here; Ray, paths and other stages do not."""
