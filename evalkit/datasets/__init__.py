"""What several tasks share: published annotation files, examples made of them, protocols, published numbers."""
