"""Code shared by several tasks: readers of annotation files, examples, protocols, published scores."""
