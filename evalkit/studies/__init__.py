"""Studies: cells that are trained and scored, what each costs, and a paper's statements held against them."""
