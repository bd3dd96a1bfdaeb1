"""Programs that run inside a tree, with nothing but the tree's own files. This program never imports them."""
