"""Programs that run inside a tree, with nothing but what the tree has: never imported by this program."""
